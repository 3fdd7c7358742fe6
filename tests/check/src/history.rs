//! What happened, one event to a line: written while the broker is driven, read by the judge.
//!
//! Owns: the event type, its text form, and the file that many threads append to. An event that says
//! what the checker is about to do (attempt, ack, kill) is appended before it is done; one that says
//! what the broker answered is appended after the answer came. The judge relies on that.
//! Bound: about 40 bytes for an event, four to eight events for a message.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::str::SplitAsciiWhitespace;
use std::sync::Mutex;

/// First line of each history: name and version of the form.
const FIRST_LINE: &str = "warren-check-history 1";

/// A message's name for ever: its publisher and its number there. A second attempt keeps it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct MessageKey {
    pub(crate) publisher: u16,
    pub(crate) sequence: u32,
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.publisher, self.sequence)
    }
}

impl MessageKey {
    /// The key that a `message-id` property carries, if it is one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (publisher, sequence) = text.split_once('.')?;
        Some(Self {
            publisher: publisher.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

/// A body's length and the first eight bytes of its BLAKE3 hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BodyPrint {
    pub(crate) bytes: u32,
    pub(crate) hash: u64,
}

/// How one life of the broker's process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LifeEnd {
    /// SIGTERM, and the process left by itself: nothing may come back or change.
    Clean,
    /// SIGKILL while it served.
    Killed,
    /// SIGKILL before it served.
    KilledStarting,
}

/// A thing whose existence the topology worker changes and probes. Its text has no spaces.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Entity {
    /// The queue's name is the routing key.
    Binding {
        exchange: String,
        queue: String,
    },
    Exchange(String),
    Queue(String),
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding { exchange, queue } => write!(f, "binding:{exchange}:{queue}"),
            Self::Exchange(name) => write!(f, "exchange:{name}"),
            Self::Queue(name) => write!(f, "queue:{name}"),
        }
    }
}

impl Entity {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "binding" => {
                let (exchange, queue) = rest.split_once(':')?;
                Some(Self::Binding {
                    exchange: exchange.to_owned(),
                    queue: queue.to_owned(),
                })
            }
            "exchange" => Some(Self::Exchange(rest.to_owned())),
            "queue" => Some(Self::Queue(rest.to_owned())),
            _ => None,
        }
    }
}

/// One line of the history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// `acked`: the checker is about to ack this delivery, or to reject it for good.
    Acked { consumer: u32, tag: u64 },
    /// `attempt`: the checker is about to publish; the session's attempts are in publish order.
    Attempt {
        message: MessageKey,
        session: u32,
        route: u16,
        body: BodyPrint,
    },
    /// `ask+` or `ask-`: a declare or bind, a delete or unbind is about to be sent.
    Ask { entity: Entity, create: bool },
    /// `broken`: what no broker may do: wrong bytes, an unknown confirm, a close without a reason.
    Broken(String),
    /// `confirm`: the broker took responsibility.
    Confirm(MessageKey),
    /// `consumer`: a consumer, push or get, on a connection made in this life.
    Consumer {
        consumer: u32,
        queue: u16,
        life: u32,
    },
    /// `deliver`: a message came, by push or get.
    Deliver {
        consumer: u32,
        tag: u64,
        message: MessageKey,
        redelivered: bool,
        body: BodyPrint,
    },
    /// `done+` or `done-`: the broker's ok to the ask of the same entity.
    Done { entity: Entity, create: bool },
    /// `drained`: everything was taken out after the last restart; nothing follows but `remaining`.
    Drained,
    /// `dropped`: the checker is about to leave this consumer, whatever it still holds unacked.
    Dropped { consumer: u32 },
    /// `end`: this life of the process is about to end.
    End { life: u32, how: LifeEnd },
    /// `foreign`: a message that no publisher of this run names as its own.
    Foreign { consumer: u32 },
    /// `life`: a process is about to be started.
    Life { life: u32 },
    /// `nack`: the broker refused responsibility.
    Nack(MessageKey),
    /// `note`: for the reader: seed, options.
    Note(String),
    /// `probe`: whether the entity was seen to exist.
    Probe { entity: Entity, present: bool },
    /// `queue`: the name of a queue number.
    Queue { queue: u16, name: String },
    /// `remaining`: messages that the queue reports after the drain.
    Remaining { queue: u16, messages: u32 },
    /// `requeued`: the checker is about to nack this delivery back into the queue.
    Requeued { consumer: u32, tag: u64 },
    /// `returned`: a mandatory message came back as unroutable.
    Returned(MessageKey),
    /// `route`: an exchange and key, and the queues which stand behind them from begin to end.
    Route { route: u16, queues: Vec<u16> },
    /// `session`: one channel of a publisher, made in this life.
    Session { session: u32, life: u32 },
    /// `transaction`: the checker is about to commit these messages as one.
    Transaction(Vec<MessageKey>),
    /// `settled`: the broker answered something later on the channel, so it knows all acks of this
    /// consumer before this line.
    Settled { consumer: u32 },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acked { consumer, tag } => write!(f, "acked {consumer} {tag}"),
            Self::Attempt {
                message,
                session,
                route,
                body: BodyPrint { bytes, hash },
            } => write!(f, "attempt {message} {session} {route} {bytes} {hash:x}"),
            Self::Ask { entity, create } => write!(f, "ask{} {entity}", sign(*create)),
            Self::Broken(text) => write!(f, "broken {}", one_line(text)),
            Self::Confirm(message) => write!(f, "confirm {message}"),
            Self::Consumer {
                consumer,
                queue,
                life,
            } => write!(f, "consumer {consumer} {queue} {life}"),
            Self::Deliver {
                consumer,
                tag,
                message,
                redelivered,
                body: BodyPrint { bytes, hash },
            } => {
                let flag = u8::from(*redelivered);
                write!(
                    f,
                    "deliver {consumer} {tag} {message} {flag} {bytes} {hash:x}"
                )
            }
            Self::Done { entity, create } => write!(f, "done{} {entity}", sign(*create)),
            Self::Drained => write!(f, "drained"),
            Self::Dropped { consumer } => write!(f, "dropped {consumer}"),
            Self::End { life, how } => {
                let how = match how {
                    LifeEnd::Clean => "clean",
                    LifeEnd::Killed => "killed",
                    LifeEnd::KilledStarting => "killed-starting",
                };
                write!(f, "end {life} {how}")
            }
            Self::Foreign { consumer } => write!(f, "foreign {consumer}"),
            Self::Life { life } => write!(f, "life {life}"),
            Self::Nack(message) => write!(f, "nack {message}"),
            Self::Note(text) => write!(f, "note {}", one_line(text)),
            Self::Probe { entity, present } => write!(f, "probe{} {entity}", sign(*present)),
            Self::Queue { queue, name } => write!(f, "queue {queue} {name}"),
            Self::Remaining { queue, messages } => write!(f, "remaining {queue} {messages}"),
            Self::Requeued { consumer, tag } => write!(f, "requeued {consumer} {tag}"),
            Self::Returned(message) => write!(f, "returned {message}"),
            Self::Route { route, queues } => {
                write!(f, "route {route}")?;
                queues.iter().try_for_each(|queue| write!(f, " {queue}"))
            }
            Self::Session { session, life } => write!(f, "session {session} {life}"),
            Self::Settled { consumer } => write!(f, "settled {consumer}"),
            Self::Transaction(messages) => {
                write!(f, "transaction")?;
                messages
                    .iter()
                    .try_for_each(|message| write!(f, " {message}"))
            }
        }
    }
}

fn sign(positive: bool) -> char {
    if positive { '+' } else { '-' }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

impl Event {
    /// The event that a line stands for; none if it is no line of a history.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut fields = Fields(rest.split_ascii_whitespace());
        let event = match word {
            "acked" => Self::Acked {
                consumer: fields.number()?,
                tag: fields.number()?,
            },
            "attempt" => Self::Attempt {
                message: fields.message()?,
                session: fields.number()?,
                route: fields.number()?,
                body: fields.body()?,
            },
            "ask+" | "ask-" => Self::Ask {
                entity: fields.entity()?,
                create: word.ends_with('+'),
            },
            "broken" => return Some(Self::Broken(rest.to_owned())),
            "confirm" => Self::Confirm(fields.message()?),
            "consumer" => Self::Consumer {
                consumer: fields.number()?,
                queue: fields.number()?,
                life: fields.number()?,
            },
            "deliver" => Self::Deliver {
                consumer: fields.number()?,
                tag: fields.number()?,
                message: fields.message()?,
                redelivered: fields.number::<u8>()? != 0,
                body: fields.body()?,
            },
            "done+" | "done-" => Self::Done {
                entity: fields.entity()?,
                create: word.ends_with('+'),
            },
            "drained" => Self::Drained,
            "dropped" => Self::Dropped {
                consumer: fields.number()?,
            },
            "end" => Self::End {
                life: fields.number()?,
                how: match fields.0.next()? {
                    "clean" => LifeEnd::Clean,
                    "killed" => LifeEnd::Killed,
                    "killed-starting" => LifeEnd::KilledStarting,
                    _ => return None,
                },
            },
            "foreign" => Self::Foreign {
                consumer: fields.number()?,
            },
            "life" => Self::Life {
                life: fields.number()?,
            },
            "nack" => Self::Nack(fields.message()?),
            "note" => return Some(Self::Note(rest.to_owned())),
            "probe+" | "probe-" => Self::Probe {
                entity: fields.entity()?,
                present: word.ends_with('+'),
            },
            "queue" => Self::Queue {
                queue: fields.number()?,
                name: fields.0.next()?.to_owned(),
            },
            "remaining" => Self::Remaining {
                queue: fields.number()?,
                messages: fields.number()?,
            },
            "requeued" => Self::Requeued {
                consumer: fields.number()?,
                tag: fields.number()?,
            },
            "returned" => Self::Returned(fields.message()?),
            "route" => {
                let route = fields.number()?;
                let queues: Result<Vec<u16>, _> = fields.0.by_ref().map(str::parse).collect();
                Self::Route {
                    route,
                    queues: queues.ok()?,
                }
            }
            "session" => Self::Session {
                session: fields.number()?,
                life: fields.number()?,
            },
            "settled" => Self::Settled {
                consumer: fields.number()?,
            },
            "transaction" => {
                let messages: Option<Vec<MessageKey>> =
                    fields.0.by_ref().map(MessageKey::parse).collect();
                Self::Transaction(messages?)
            }
            _ => return None,
        };
        fields.0.next().is_none().then_some(event)
    }
}

/// The words of one line after the first.
struct Fields<'a>(SplitAsciiWhitespace<'a>);

impl Fields<'_> {
    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }

    fn message(&mut self) -> Option<MessageKey> {
        MessageKey::parse(self.0.next()?)
    }

    fn entity(&mut self) -> Option<Entity> {
        Entity::parse(self.0.next()?)
    }

    fn body(&mut self) -> Option<BodyPrint> {
        Some(BodyPrint {
            bytes: self.number()?,
            hash: u64::from_str_radix(self.0.next()?, 16).ok()?,
        })
    }
}

/// The file that every thread appends its events to, in one order.
pub(crate) struct History(Mutex<BufWriter<File>>);

impl History {
    /// Begins a history in a new file, or in place of an old one.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        writeln!(file, "{FIRST_LINE}")?;
        Ok(Self(Mutex::new(file)))
    }

    /// Appends an event. A checker that cannot write its history has nothing to say: it stops.
    pub(crate) fn add(&self, event: &Event) {
        let mut file = self.0.lock().expect("no thread panics while it writes");
        writeln!(file, "{event}").expect("the history can be written");
    }

    /// Writes out what is still in memory.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.0
            .lock()
            .expect("no thread panics while it writes")
            .flush()
    }
}

/// Hands each event of a history file to `take`. A line that is none is an `InvalidData` error.
pub(crate) fn read(path: &Path, mut take: impl FnMut(&Event)) -> io::Result<()> {
    let bad = |number: usize| {
        let text = format!("{}: line {number} is no event", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    for (index, line) in BufReader::with_capacity(1 << 20, File::open(path)?)
        .lines()
        .enumerate()
    {
        let line = line?;
        if index == 0 {
            if line != FIRST_LINE {
                return Err(bad(1));
            }
            continue;
        }
        take(&Event::parse(&line).ok_or_else(|| bad(index + 1))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One event of each kind is written and read back as it was.
    #[test]
    fn every_event_survives_its_line() {
        let lines = "acked 3 9\nattempt 1.77 4 2 1300000 9f\nask+ queue:t1\nask- binding:x:t1\n\
            broken no such tag: 9\nconfirm 1.77\nconsumer 3 0 12\ndeliver 3 9 1.77 1 1300000 9f\n\
            done+ exchange:x\ndone- queue:t1\ndrained\ndropped 3\nend 12 killed\nend 13 clean\n\
            end 14 killed-starting\nforeign 3\nlife 12\nnack 1.78\nnote seed 5\nprobe+ queue:t1\n\
            probe- exchange:x\nqueue 0 check.0\nremaining 0 2\nrequeued 3 9\nreturned 1.77\n\
            route 2 0 1 3\nsession 4 12\nsettled 3";
        for line in lines.lines() {
            let event = Event::parse(line).unwrap_or_else(|| panic!("not read: {line}"));
            assert_eq!(event.to_string(), line);
        }
    }

    /// A line cut short, a line with a word too many and an unknown word are no events.
    #[test]
    fn damaged_lines_are_refused() {
        for line in [
            "acked 3",
            "confirm 1",
            "confirm 1.2 3",
            "deliver 1 2 3.4 0 5",
            "hello 1",
            "",
        ] {
            assert_eq!(Event::parse(line), None, "{line:?}");
        }
    }
}
