//! What `warren top` shows: figures of the broker to lines of text, and keys to what is shown next.
//!
//! Pure: the broker's answers come in, lines go out.

use serde_json::{Map, Value, json};

use super::screen::Key;

/// What the table is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum View {
    Queues,
    Transfers,
}

/// The column that queues are sorted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Sort {
    /// Most messages first
    Total,
    /// Most waiting messages first
    Ready,
    /// Most unacknowledged messages first
    Unacked,
    /// Most consumers first
    Consumers,
    /// Busiest publishers first
    In,
    /// Busiest consumers first
    Out,
    /// By name
    Name,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::Total,
        Self::Ready,
        Self::Unacked,
        Self::Consumers,
        Self::In,
        Self::Out,
        Self::Name,
    ];

    /// Where the management API has it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Total => "messages",
            Self::Ready => "messages_ready",
            Self::Unacked => "messages_unacknowledged",
            Self::Consumers => "consumers",
            Self::In => "message_stats.publish_details.rate",
            Self::Out => "message_stats.deliver_get_details.rate",
            Self::Name => "name",
        }
    }

    /// Whether it goes from A to Z, not from much to little.
    pub(super) fn is_text(self) -> bool {
        self == Self::Name
    }

    fn title(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Ready => "ready",
            Self::Unacked => "unacked",
            Self::Consumers => "consumers",
            Self::In => "in/s",
            Self::Out => "out/s",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self);
        let next = place.map_or(0, |place| (place + 1) % Self::ALL.len());
        Self::ALL.get(next).copied().unwrap_or(Self::Total)
    }
}

/// What is shown, and how.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) view: View,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) page: usize,
}

/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 100;

impl State {
    /// Whether the key means that the user has seen enough.
    pub(super) fn ends_with(&self, key: Key) -> bool {
        !self.is_typing && matches!(key, Key::Char('q' | 'Q') | Key::Escape)
    }

    /// Takes a key; whether the broker must be asked again.
    pub(super) fn handle_key(&mut self, key: Key) -> bool {
        if self.is_typing {
            match key {
                Key::Enter | Key::Tab => self.is_typing = false,
                Key::Escape => {
                    self.is_typing = false;
                    self.filter.clear();
                }
                Key::Backspace => drop(self.filter.pop()),
                Key::Char(char) if self.filter.chars().count() < FILTER_CHARS_MAX => {
                    self.filter.push(char);
                }
                Key::Char(_) | Key::Up | Key::Down => return false,
            }
            self.page = 1;
            return true;
        }
        match key {
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Char('/') => {
                self.is_typing = true;
                return false;
            }
            Key::Char(' ') => {
                self.is_paused = !self.is_paused;
                return !self.is_paused;
            }
            Key::Tab | Key::Char('t') => {
                self.view = match self.view {
                    View::Queues => View::Transfers,
                    View::Transfers => View::Queues,
                };
                return false;
            }
            Key::Down => {
                self.page += 1;
                return true;
            }
            Key::Up => {
                self.page = self.page.saturating_sub(1).max(1);
                return true;
            }
            Key::Char(_) | Key::Backspace | Key::Enter | Key::Escape => return false,
        }
        self.page = 1;
        true
    }
}

/// How a line stands out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Alarm,
    Faint,
    Good,
    Heading,
    Plain,
}

/// A line of the screen, without anything that a terminal would take for an order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) tone: Tone,
}

fn line(tone: Tone, text: impl Into<String>) -> Line {
    Line {
        text: text.into(),
        tone,
    }
}

/// The broker's answers as one object: what `--json` prints. `transfers` is `null` where nothing is known of them.
pub(super) fn summary(
    overview: &Value,
    nodes: Option<&Value>,
    queues: &Value,
    swarms: Option<&Value>,
) -> Value {
    let node = nodes.and_then(|nodes| nodes.get(0));
    let of_node = |name: &str| node.and_then(|node| node.get(name)).cloned();
    let rates = [
        ("publish", "publish_details"),
        ("deliver", "deliver_get_details"),
        ("ack", "ack_details"),
    ];
    let rate = |object: &Value, name: &str| number(object, &["message_stats", name, "rate"]);
    let mut totals: Map<String, Value> = rates
        .iter()
        .map(|(name, path)| (format!("{name}_rate"), json!(rate(overview, path))))
        .collect();
    for (name, path) in [
        ("messages", ["queue_totals", "messages"]),
        ("ready", ["queue_totals", "messages_ready"]),
        ("unacked", ["queue_totals", "messages_unacknowledged"]),
        ("connections", ["object_totals", "connections"]),
        ("channels", ["object_totals", "channels"]),
        ("consumers", ["object_totals", "consumers"]),
        ("queues", ["object_totals", "queues"]),
    ] {
        totals.insert(name.to_owned(), json!(number(overview, &path) as u64));
    }
    let lines = items(queues).iter().map(|queue| {
        json!({
            "name": queue.get("name"),
            "vhost": queue.get("vhost"),
            "type": queue.get("type"),
            "state": queue.get("state"),
            "messages": number(queue, &["messages"]) as u64,
            "ready": number(queue, &["messages_ready"]) as u64,
            "unacked": number(queue, &["messages_unacknowledged"]) as u64,
            "consumers": number(queue, &["consumers"]) as u64,
            "publish_rate": rate(queue, "publish_details"),
            "deliver_rate": rate(queue, "deliver_get_details"),
            "ack_rate": rate(queue, "ack_details"),
        })
    });
    let lines: Vec<Value> = lines.collect();
    let transfers = swarms.map(|swarms| {
        let chosen = [
            "id",
            "name",
            "size_bytes",
            "members",
            "seeds",
            "fetching",
            "progress",
            "down_rate",
            "up_rate",
        ];
        let one = |swarm: &Value| -> Value {
            let field = |name: &&str| Some(((*name).to_owned(), swarm.get(*name)?.clone()));
            Value::Object(chosen.iter().filter_map(field).collect())
        };
        items(swarms).iter().map(one).collect::<Vec<_>>()
    });
    json!({
        "node": overview.get("node"),
        "product": overview.get("product_name"),
        "version": overview.get("product_version"),
        "uptime_ms": of_node("uptime"),
        "memory_used_bytes": of_node("mem_used"),
        "memory_limit_bytes": of_node("mem_limit"),
        "memory_alarm": of_node("mem_alarm"),
        "disk_free_bytes": of_node("disk_free"),
        "disk_free_alarm": of_node("disk_free_alarm"),
        "totals": totals,
        "queue_page_count": queues.get("page_count"),
        "queues": lines,
        "transfers": transfers,
    })
}

/// A list, whether it came as a page or bare.
fn items(list: &Value) -> &[Value] {
    let items = list.get("items").unwrap_or(list).as_array();
    items.map_or(&[], Vec::as_slice)
}

fn number(object: &Value, path: &[&str]) -> f64 {
    let found = path.iter().try_fold(object, |value, part| value.get(part));
    found.and_then(Value::as_f64).unwrap_or(0.0)
}

/// All lines, for a printer.
pub(super) fn lines(seen: &Value, state: &State) -> Vec<Line> {
    let mut lines = head(seen);
    lines.extend(table(seen, state, usize::MAX));
    lines
}

/// As many lines as the screen has, none longer than it.
pub(super) fn page(seen: &Value, state: &State, columns: usize, rows: usize) -> Vec<Line> {
    let mut lines = head(seen);
    lines.extend(table(seen, state, columns));
    lines.truncate(rows.saturating_sub(1));
    lines.resize(rows.saturating_sub(1), line(Tone::Plain, ""));
    lines.push(foot(seen, state));
    for line in &mut lines {
        line.text = line.text.chars().take(columns).collect();
        if line.tone == Tone::Heading {
            let missing = columns.saturating_sub(line.text.chars().count());
            line.text.extend(std::iter::repeat_n(' ', missing));
        }
    }
    lines
}

fn head(seen: &Value) -> Vec<Line> {
    let totals = seen.get("totals").unwrap_or(&Value::Null);
    let total = |name: &str| number(totals, &[name]);
    let uptime = number(seen, &["uptime_ms"]) as u64 / 1_000;
    let mut lines = vec![
        line(
            Tone::Plain,
            format!(
                "{} {}  {}  up {}",
                word(seen, "product"),
                word(seen, "version"),
                word(seen, "node"),
                duration(uptime)
            ),
        ),
        line(
            Tone::Plain,
            format!(
                "messages {} ({} ready, {} unacked)   in {}/s  out {}/s  ack {}/s",
                count(total("messages")),
                count(total("ready")),
                count(total("unacked")),
                count(total("publish_rate")),
                count(total("deliver_rate")),
                count(total("ack_rate"))
            ),
        ),
        line(
            Tone::Plain,
            format!(
                "connections {}  channels {}  consumers {}  queues {}   memory {} of {}   disk free {}",
                count(total("connections")),
                count(total("channels")),
                count(total("consumers")),
                count(total("queues")),
                bytes(number(seen, &["memory_used_bytes"])),
                bytes(number(seen, &["memory_limit_bytes"])),
                bytes(number(seen, &["disk_free_bytes"]))
            ),
        ),
    ];
    let is_on = |name: &str| seen.get(name) == Some(&Value::Bool(true));
    if is_on("memory_alarm") || is_on("disk_free_alarm") {
        let what = match (is_on("memory_alarm"), is_on("disk_free_alarm")) {
            (true, true) => "memory and disk",
            (true, false) => "memory",
            (false, _) => "disk",
        };
        let text = format!("ALARM: {what} short; publishers wait");
        lines.push(line(Tone::Alarm, text));
    }
    if let Some(error) = seen.get("error").and_then(Value::as_str) {
        lines.push(line(Tone::Alarm, clean(error)));
    }
    lines
}

fn foot(seen: &Value, state: &State) -> Line {
    if state.is_typing {
        return line(Tone::Heading, format!("filter: {}_", clean(&state.filter)));
    }
    let mut text = String::from("q quit  s sort  r reverse  / filter  Tab view  Space pause");
    let page_count = number(seen, &["queue_page_count"]) as u64;
    if page_count > 1 {
        text.push_str(&format!("   page {}/{page_count}", state.page));
    }
    if !state.filter.is_empty() {
        text.push_str(&format!("   names with '{}'", clean(&state.filter)));
    }
    if state.is_paused {
        text.push_str("   PAUSED");
    }
    line(Tone::Faint, text)
}

/// Columns beside the name.
const QUEUE_COLUMNS_WIDTH: usize = 72;
const TRANSFER_COLUMNS_WIDTH: usize = 76;
/// Least and most columns for a name.
const NAME_WIDTH: (usize, usize) = (12, 60);

fn table(seen: &Value, state: &State, columns: usize) -> Vec<Line> {
    let width = |others: usize| {
        columns
            .saturating_sub(others)
            .clamp(NAME_WIDTH.0, NAME_WIDTH.1)
    };
    match state.view {
        View::Queues => queue_table(seen, state, width(QUEUE_COLUMNS_WIDTH)),
        View::Transfers => transfer_table(seen, width(TRANSFER_COLUMNS_WIDTH)),
    }
}

fn queue_table(seen: &Value, state: &State, width: usize) -> Vec<Line> {
    let title = |sort: Sort| match sort == state.sort {
        true => format!(
            "{}{}",
            sort.title(),
            if state.is_reversed { '^' } else { 'v' }
        ),
        false => sort.title().to_owned(),
    };
    let mut lines = vec![line(
        Tone::Heading,
        format!(
            "{:<width$} {:<8} {:>9} {:>9} {:>9} {:>10} {:>8} {:>8}",
            title(Sort::Name),
            "vhost",
            title(Sort::Total),
            title(Sort::Ready),
            title(Sort::Unacked),
            title(Sort::Consumers),
            title(Sort::In),
            title(Sort::Out)
        ),
    )];
    for queue in items(seen.get("queues").unwrap_or(&Value::Null)) {
        let of = |name: &str| number(queue, &[name]);
        let tone = match (of("consumers") > 0.0, of("messages") > 0.0) {
            (true, true) => Tone::Plain,
            (true, false) => Tone::Good,
            (false, _) => Tone::Faint,
        };
        lines.push(line(
            tone,
            format!(
                "{:<width$} {:<8} {:>9} {:>9} {:>9} {:>10} {:>8} {:>8}",
                cut(&word(queue, "name"), width),
                cut(&word(queue, "vhost"), 8),
                count(of("messages")),
                count(of("ready")),
                count(of("unacked")),
                count(of("consumers")),
                count(of("publish_rate")),
                count(of("deliver_rate"))
            ),
        ));
    }
    lines
}

fn transfer_table(seen: &Value, width: usize) -> Vec<Line> {
    let mut lines = vec![line(
        Tone::Heading,
        format!(
            "{:<width$} {:>9} {:>7} {:>6} {:>9} {:<26} {:>10}",
            "payload", "size", "members", "seeds", "fetching", "progress", "rate"
        ),
    )];
    let transfers = seen.get("transfers").unwrap_or(&Value::Null);
    if transfers.is_null() {
        lines.push(line(Tone::Faint, "the broker tells nothing of transfers"));
    }
    for swarm in items(transfers) {
        let of = |name: &str| number(swarm, &[name]);
        let name = match word(swarm, "name") {
            name if name.is_empty() => word(swarm, "id"),
            name => name,
        };
        let tone = if of("fetching") > 0.0 {
            Tone::Plain
        } else {
            Tone::Faint
        };
        lines.push(line(
            tone,
            format!(
                "{:<width$} {:>9} {:>7} {:>6} {:>9} {:<26} {:>10}",
                cut(&name, width),
                bytes(of("size_bytes")),
                count(of("members")),
                count(of("seeds")),
                count(of("fetching")),
                bar(of("progress")),
                format!("{}/s", bytes(of("down_rate")))
            ),
        ));
    }
    lines
}

/// Cells of a bar of progress.
const BAR_CELLS: usize = 20;

/// A share from 0 to 1 as a bar and percent.
fn bar(share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let full = (share * BAR_CELLS as f64) as usize;
    let cells = "#".repeat(full) + &"-".repeat(BAR_CELLS.saturating_sub(full));
    format!("{cells} {:>4.0}%", share * 100.0)
}

/// A text field, fit for a terminal.
fn word(object: &Value, name: &str) -> String {
    clean(object.get(name).and_then(Value::as_str).unwrap_or_default())
}

/// Names come from outside: what could order the terminal about goes.
fn clean(text: &str) -> String {
    let is_order = |char: char| {
        char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|char| if is_order(char) { '?' } else { char })
        .collect()
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['~'])
            .collect(),
        false => text.to_owned(),
    }
}

/// A number in few columns.
fn count(number: f64) -> String {
    match number {
        number if number >= 10_000_000.0 => format!("{:.0}M", number / 1e6),
        number if number >= 100_000.0 => format!("{:.0}k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

/// A size in few columns.
fn bytes(number: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.iter().find(|(_, size)| number >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", number / size),
        None => format!("{number:.0} B"),
    }
}

fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        days => format!("{days} d {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            view: View::Queues,
            sort: Sort::Total,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            page: 1,
        }
    }

    fn seen() -> Value {
        let overview = json!({"node": "warren@h", "product_name": "Warren", "product_version": "1",
            "queue_totals": {"messages": 12, "messages_ready": 10, "messages_unacknowledged": 2},
            "object_totals": {"queues": 2}, "message_stats": {"publish_details": {"rate": 5.5}}});
        let queue = json!({"name": "evil\u{1b}[2J", "vhost": "/", "messages": 12, "consumers": 1});
        let queues = json!({"items": [queue], "page_count": 3});
        let nodes = json!([{"mem_used": 1_500_000, "mem_alarm": true, "uptime": 90_061_000}]);
        let swarms = json!([{"id": "ab", "name": "", "size_bytes": 2_000_000_000_u64, "progress": 0.5,
            "fetching": 1, "key": "secret"}]);
        summary(&overview, Some(&nodes), &queues, Some(&swarms))
    }

    /// Every line fits the screen, nothing in it orders the terminal about, and the alarm is seen.
    #[test]
    fn a_page_fits_the_screen() {
        for (columns, rows) in [(80, 24), (20, 4), (1, 1), (300, 100)] {
            let page = page(&seen(), &state(), columns, rows);
            assert_eq!(page.len(), rows);
            for line in &page {
                assert!(line.text.chars().count() <= columns, "{line:?}");
                assert!(!line.text.chars().any(char::is_control), "{line:?}");
            }
        }
        let page = page(&seen(), &state(), 120, 24);
        let has = |text: &str| page.iter().any(|line| line.text.contains(text));
        assert!(has("evil?[2J") && has("1 d 01:01:01") && has("page 1/3") && has("in 6/s"));
        assert!(
            page.iter()
                .any(|line| line.tone == Tone::Alarm && line.text.contains("memory"))
        );
    }

    /// Only what is known goes into the object, and a broker without swarms has none.
    #[test]
    fn the_object_is_for_scripts() {
        let seen = seen();
        assert_eq!(seen["queues"][0]["messages"], 12);
        assert_eq!(seen["queues"][0]["publish_rate"], 0.0);
        assert_eq!(seen["transfers"][0]["progress"], 0.5);
        assert!(seen["transfers"][0].get("key").is_none());
        let without = summary(&json!({}), None, &json!([]), None);
        assert!(without["transfers"].is_null() && without["uptime_ms"].is_null());
        let transfers = State {
            view: View::Transfers,
            ..state()
        };
        assert!(
            lines(&seen, &transfers)
                .iter()
                .any(|line| line.text.contains("##########----------"))
        );
        assert!(
            lines(&without, &transfers)
                .iter()
                .any(|line| line.text.contains("nothing of transfers"))
        );
    }

    /// Keys sort, filter, turn pages and end.
    #[test]
    fn keys_change_what_is_shown() {
        let mut state = state();
        assert!(state.handle_key(Key::Char('s')));
        assert_eq!(state.sort, Sort::Ready);
        assert!(state.handle_key(Key::Down) && state.page == 2);
        assert!(!state.handle_key(Key::Char('/')));
        for key in [Key::Char('q'), Key::Char('x'), Key::Backspace] {
            assert!(!state.ends_with(key), "it is typed");
            assert!(state.handle_key(key));
        }
        assert_eq!((state.filter.as_str(), state.page), ("q", 1));
        assert!(state.handle_key(Key::Enter) && state.ends_with(Key::Char('q')));
        assert!(!state.handle_key(Key::Char(' ')) && state.is_paused);
        assert!(!state.handle_key(Key::Tab) && state.view == View::Transfers);
        for _ in 0..Sort::ALL.len() {
            state.handle_key(Key::Char('s'));
        }
        assert_eq!(state.sort, Sort::Ready);
    }
}
