//! The broker itself: is it up, how is it, definitions, the memory watermark.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Command, Context, DATA_ERROR, Done, Failure, MANY, UNAVAILABLE, USAGE, argument, command,
    json as parse_json, lists, table,
};

pub(super) const COMMANDS: &[Command] = &[
    command("status", "", "Displays status of a node", (0, 0), status),
    command(
        "cluster_status",
        "",
        "Displays the nodes in the cluster",
        (0, 0),
        cluster_status,
    ),
    command(
        "environment",
        "",
        "Displays what the broker says of itself",
        (0, 0),
        environment,
    ),
    command(
        "report",
        "",
        "Generates a server status report",
        (0, 0),
        report,
    ),
    command("version", "", "Displays the version", (0, 0), version),
    command(
        "server_version",
        "",
        "Displays server version",
        (0, 0),
        server_version,
    ),
    command("ping", "", "Checks that the broker answers", (0, 0), ping),
    command(
        "await_startup",
        "[--timeout <seconds>]",
        "Waits for the broker to start",
        (0, 0),
        await_startup,
    ),
    command(
        "wait",
        "[<pidfile>]",
        "Waits for the broker to start",
        (0, 1),
        await_startup,
    ),
    command(
        "await_online_nodes",
        "<count>",
        "Waits for nodes to join the cluster",
        (1, 1),
        await_startup,
    ),
    command(
        "check_running",
        "",
        "Exits with an error if the broker is not running",
        (0, 0),
        check_running,
    ),
    command(
        "is_running",
        "",
        "Tells whether the broker is running",
        (0, 0),
        check_running,
    ),
    command(
        "is_booting",
        "",
        "Tells whether the broker is starting",
        (0, 0),
        is_booting,
    ),
    command(
        "check_alarms",
        "",
        "Exits with an error if there are alarms",
        (0, 0),
        check_alarms,
    ),
    command(
        "check_local_alarms",
        "",
        "Exits with an error if there are alarms",
        (0, 0),
        check_alarms,
    ),
    command("alarms", "", "Lists resource alarms", (0, 0), alarms),
    command(
        "check_virtual_hosts",
        "",
        "Checks that all vhosts run",
        (0, 0),
        check_virtual_hosts,
    ),
    command(
        "check_port_connectivity",
        "",
        "Checks that all listeners accept",
        (0, 0),
        check_port_connectivity,
    ),
    command(
        "check_port_listener",
        "<port>",
        "Checks that the port is listened on",
        (1, 1),
        check_port_listener,
    ),
    command(
        "check_protocol_listener",
        "<protocol>",
        "Checks that the protocol is listened for",
        (1, 1),
        check_protocol_listener,
    ),
    command(
        "check_if_node_is_quorum_critical",
        "",
        "Checks whether queues would lose their quorum",
        (0, 0),
        check_running,
    ),
    command(
        "check_if_node_is_mirror_sync_critical",
        "",
        "Checks whether queues would lose their mirrors",
        (0, 0),
        check_running,
    ),
    command(
        "node_health_check",
        "",
        "DEPRECATED: checks the node",
        (0, 0),
        check_alarms,
    ),
    command("listeners", "", "Lists listeners", (0, 0), listeners),
    command(
        "os_env",
        "",
        "Lists RabbitMQ's environment variables",
        (0, 0),
        nothing,
    ),
    command(
        "list_feature_flags",
        "[<column> ...]",
        "Lists feature flags",
        (0, MANY),
        list_feature_flags,
    ),
    command(
        "enable_feature_flag",
        "<name>|all",
        "Enables a feature flag",
        (1, 1),
        enable_feature_flag,
    ),
    command(
        "list",
        "",
        "Lists plugins: what is built in",
        (0, MANY),
        list_plugins,
    ),
    command(
        "is_enabled",
        "<plugin> [...]",
        "Tells whether plugins are on",
        (1, MANY),
        is_enabled,
    ),
    command(
        "enable",
        "<plugin> [...]",
        "Enables plugins: what is built in is on",
        (1, MANY),
        is_enabled,
    ),
    command(
        "export_definitions",
        "<file>|-",
        "Exports definitions as JSON",
        (1, 1),
        export_definitions,
    ),
    command(
        "import_definitions",
        "[<file>]",
        "Imports definitions from JSON",
        (0, 1),
        import_definitions,
    ),
    command(
        "set_vm_memory_high_watermark",
        "<fraction> | absolute <value>",
        "Sets the memory high watermark",
        (1, 2),
        set_memory_watermark,
    ),
    command(
        "set_log_level",
        "<level> | <filter>",
        "Sets what is logged, as debug or info,warren::swarm=debug",
        (1, 1),
        set_log_level,
    ),
    command(
        "force_gc",
        "",
        "Does nothing: there is no garbage to collect",
        (0, 0),
        nothing,
    ),
    command(
        "rotate_logs",
        "",
        "Does nothing: logs go to standard error",
        (0, 0),
        nothing,
    ),
    command(
        "rebalance",
        "all|classic|quorum",
        "Spreads queues over nodes",
        (1, 1),
        rebalance,
    ),
];

/// Longest wait for a broker to start.
const STARTUP_WAIT: Duration = Duration::from_secs(300);
/// Time between two looks whether it has.
const STARTUP_PAUSE: Duration = Duration::from_millis(200);

pub(super) fn node(context: &Context) -> Result<Value, Failure> {
    let nodes = context.get("nodes")?;
    let node = nodes.get(0).cloned();
    node.ok_or_else(|| Failure::new(UNAVAILABLE, "the broker names no node"))
}

pub(super) fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

fn status(context: &Context, _: &[String]) -> Done {
    let (node, overview) = (node(context)?, context.get("overview")?);
    if context.options.formatter == super::options::Formatter::Json {
        out!("{}", json!({ "node": node, "overview": overview }));
        return Ok(());
    }
    let show = |object: &Value, name: &str| table::text(field(object, name));
    let uptime = field(&node, "uptime").as_u64().unwrap_or(0) / 1000;
    context.say(format_args!("Status of node {} ...", show(&node, "name")));
    out!(
        "Runtime\n\nOS PID: {}\nUptime (seconds): {uptime}",
        show(&node, "os_pid")
    );
    out!("Is under maintenance?: {}", show(&node, "being_drained"));
    out!("Product name: {}", show(&overview, "product_name"));
    out!("Product version: {}", show(&overview, "product_version"));
    out!("RabbitMQ version: {}", show(&overview, "rabbitmq_version"));
    out!("Node name: {}", show(&node, "name"));
    out!("\nAlarms\n");
    print_alarms(&node);
    out!(
        "\nMemory\n\nTotal memory used: {} bytes",
        show(&node, "mem_used")
    );
    out!("Memory high watermark: {} bytes", show(&node, "mem_limit"));
    out!(
        "\nFree Disk Space\n\nLow free disk space watermark: {} bytes",
        show(&node, "disk_free_limit")
    );
    out!("Free disk space: {} bytes", show(&node, "disk_free"));
    out!(
        "\nFile Descriptors\n\nTotal: {}, limit: {}",
        show(&node, "fd_used"),
        show(&node, "fd_total")
    );
    let totals = field(&overview, "object_totals");
    out!(
        "\nTotals\n\nConnection count: {}\nQueue count: {}",
        show(totals, "connections"),
        show(totals, "queues")
    );
    out!("\nListeners\n");
    print_listeners(&overview);
    Ok(())
}

fn print_alarms(node: &Value) {
    let is_on = |name: &str| field(node, name).as_bool().unwrap_or(false);
    let name = table::text(field(node, "name"));
    let mut none = true;
    for (alarm, text) in [
        ("mem_alarm", "Memory"),
        ("disk_free_alarm", "Free disk space"),
    ] {
        if is_on(alarm) {
            none = false;
            out!("{text} alarm on node {name}");
        }
    }
    if none {
        out!("(none)");
    }
}

fn print_listeners(overview: &Value) {
    for listener in field(overview, "listeners")
        .as_array()
        .into_iter()
        .flatten()
    {
        out!(
            "Interface: {}, port: {}, protocol: {}",
            table::text(field(listener, "ip_address")),
            table::text(field(listener, "port")),
            table::text(field(listener, "protocol"))
        );
    }
}

fn listeners(context: &Context, _: &[String]) -> Done {
    context.say("Asking the node to report its protocol listeners ...");
    print_listeners(&context.get("overview")?);
    Ok(())
}

fn cluster_status(context: &Context, _: &[String]) -> Done {
    let overview = context.get("overview")?;
    let name = table::text(field(&overview, "node"));
    context.say(format_args!("Cluster status of node {name} ..."));
    out!(
        "Basics\n\nCluster name: {}",
        table::text(field(&overview, "cluster_name"))
    );
    out!("\nDisk Nodes\n\n{name}\n\nRunning Nodes\n\n{name}");
    out!(
        "\nVersions\n\n{name}: {} {}",
        table::text(field(&overview, "product_name")),
        table::text(field(&overview, "product_version"))
    );
    out!("\nAlarms\n");
    print_alarms(&node(context)?);
    out!("\nNetwork Partitions\n\n(none)\n\nListeners\n");
    print_listeners(&overview);
    Ok(())
}

fn environment(context: &Context, _: &[String]) -> Done {
    let node = node(context)?;
    context.say(format_args!(
        "Application environment of node {} ...",
        table::text(field(&node, "name"))
    ));
    out!("{node:#}");
    Ok(())
}

fn report(context: &Context, arguments: &[String]) -> Done {
    status(context, arguments)?;
    for (title, path) in [
        ("Connections", "connections"),
        ("Channels", "channels"),
        ("Queues", "queues"),
        ("Exchanges", "exchanges"),
        ("Bindings", "bindings"),
        ("Consumers", "consumers"),
        ("Permissions", "permissions"),
        ("Policies", "policies"),
    ] {
        out!("\n{title}\n\n{:#}", context.get(path)?);
    }
    Ok(())
}

fn version(_: &Context, _: &[String]) -> Done {
    out!("{}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn server_version(context: &Context, _: &[String]) -> Done {
    let overview = context.get("overview")?;
    context.say("Asking the node for its version ...");
    out!("{}", table::text(field(&overview, "product_version")));
    Ok(())
}

/// Whether somebody answers there: that the login is refused is an answer too.
fn answers(context: &Context) -> Result<(), Failure> {
    let answer = context
        .options
        .client
        .send("GET", "overview?columns=node", &[], None)?;
    match answer.status {
        200 | 401 => Ok(()),
        _ => Err(Failure::new(UNAVAILABLE, answer.reason())),
    }
}

fn ping(context: &Context, _: &[String]) -> Done {
    context.say(format_args!(
        "Will ping {} ...",
        context.options.client.authority
    ));
    answers(context)?;
    context.say("Ping succeeded");
    Ok(())
}

fn await_startup(context: &Context, _: &[String]) -> Done {
    let started = Instant::now();
    loop {
        match answers(context) {
            Ok(()) => return Ok(()),
            Err(failure) if started.elapsed() >= STARTUP_WAIT => return Err(failure),
            Err(_) => std::thread::sleep(STARTUP_PAUSE),
        }
    }
}

fn check_running(context: &Context, _: &[String]) -> Done {
    let name = table::text(field(&node(context)?, "name"));
    context.say(format_args!(
        "RabbitMQ on node {name} is fully booted and running"
    ));
    Ok(())
}

fn is_booting(context: &Context, _: &[String]) -> Done {
    answers(context)?;
    context.say("The broker is fully booted and running");
    Ok(())
}

/// A health check: its answer is good, or names what is not.
fn check(context: &Context, path: &str) -> Done {
    let answer = context.send("GET", &format!("health/checks/{path}"), None)?;
    match answer.is_success() {
        true => Ok(()),
        false => Err(Failure::new(
            UNAVAILABLE,
            format!("{}\n{}", answer.reason(), answer.body),
        )),
    }
}

fn check_alarms(context: &Context, _: &[String]) -> Done {
    check(context, "alarms")?;
    context.say("The node reported no alarms");
    Ok(())
}

fn alarms(context: &Context, _: &[String]) -> Done {
    let node = node(context)?;
    context.say("Asking the node to report any known resource alarms ...");
    print_alarms(&node);
    Ok(())
}

fn check_virtual_hosts(context: &Context, _: &[String]) -> Done {
    check(context, "virtual-hosts")?;
    context.say("All virtual hosts are running");
    Ok(())
}

fn check_port_connectivity(context: &Context, _: &[String]) -> Done {
    let overview = context.get("overview")?;
    for listener in field(&overview, "listeners")
        .as_array()
        .into_iter()
        .flatten()
    {
        let ip = table::text(field(listener, "ip_address"));
        let port = field(listener, "port").as_u64().unwrap_or(0);
        let ip = match ip.as_str() {
            "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" => "::1".to_owned(),
            _ => ip,
        };
        let address = match ip.contains(':') {
            true => format!("[{ip}]:{port}"),
            false => format!("{ip}:{port}"),
        };
        std::net::TcpStream::connect(&address)
            .map_err(|error| Failure::new(UNAVAILABLE, format!("{address}: {error}")))?;
    }
    context.say("Successfully connected to all listeners");
    Ok(())
}

fn check_port_listener(context: &Context, arguments: &[String]) -> Done {
    check(
        context,
        &format!("port-listener/{}", argument(arguments, 0)),
    )
}

fn check_protocol_listener(context: &Context, arguments: &[String]) -> Done {
    check(
        context,
        &format!("protocol-listener/{}", argument(arguments, 0)),
    )
}

/// RabbitMQ's words for levels with ours.
const LOG_LEVELS: [(&str, &str); 8] = [
    ("debug", "debug"),
    ("info", "info"),
    ("notice", "info"),
    ("warning", "warn"),
    ("error", "error"),
    ("critical", "error"),
    ("alert", "error"),
    ("none", "off"),
];

// req: LOG-1
fn set_log_level(context: &Context, arguments: &[String]) -> Done {
    let asked = argument(arguments, 0);
    let level = LOG_LEVELS.iter().find(|(word, _)| *word == asked);
    let is_filter = asked.contains(['=', ',', ':']) || ["warn", "trace", "off"].contains(&asked);
    let filter = match level {
        Some((_, level)) => level,
        None if is_filter => asked,
        None => {
            let words: Vec<_> = LOG_LEVELS.iter().map(|(word, _)| *word).collect();
            return Err(Failure::usage(format!(
                "level {asked} is not supported. Try one of {}, or a filter",
                words.join(", ")
            )));
        }
    };
    context.say(format_args!("Setting log level to \"{asked}\" ..."));
    context.put("warren/log-filter", &json!({ "filter": filter }))?;
    Ok(())
}

fn nothing(_: &Context, _: &[String]) -> Done {
    Ok(())
}

fn rebalance(context: &Context, _: &[String]) -> Done {
    context.post("rebalance/queues", &json!({}))?;
    Ok(())
}

fn list_feature_flags(context: &Context, arguments: &[String]) -> Done {
    let columns = lists::columns(
        arguments,
        &["name", "state", "stability", "provided_by", "desc"],
        &["name", "state"],
    )?;
    context.say("Listing feature flags ...");
    lists::print(context, "feature-flags", &columns, |_| ())
}

fn enable_feature_flag(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Enabling feature flag \"{name}\" ..."));
    if name != "all" {
        context.put(&format!("feature-flags/{name}/enable"), &json!({}))?;
    }
    Ok(())
}

/// What RabbitMQ has as plugins and is part of this broker.
const BUILT_IN: [&str; 5] = [
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
];

fn list_plugins(_: &Context, _: &[String]) -> Done {
    for plugin in BUILT_IN {
        out!("[E*] {plugin} {}", env!("CARGO_PKG_VERSION"));
    }
    Ok(())
}

fn is_enabled(context: &Context, arguments: &[String]) -> Done {
    let missing: Vec<_> = arguments
        .iter()
        .filter(|name| !BUILT_IN.contains(&name.as_str()))
        .collect();
    if let Some(name) = missing.first() {
        return Err(Failure::new(
            UNAVAILABLE,
            format!("Plugin {name} is not part of this broker"),
        ));
    }
    context.say(format_args!("Plugin {} is enabled", arguments.join(", ")));
    Ok(())
}

fn export_definitions(context: &Context, arguments: &[String]) -> Done {
    let file = argument(arguments, 0);
    if file != "-" {
        context.say(format_args!(
            "Exporting definitions in JSON to a file at \"{file}\" ..."
        ));
    }
    let definitions = context.get("definitions")?;
    if file == "-" {
        out!("{definitions}");
        return Ok(());
    }
    std::fs::write(file, definitions.to_string())
        .map_err(|error| Failure::new(DATA_ERROR, format!("cannot write {file}: {error}")))
}

fn import_definitions(context: &Context, arguments: &[String]) -> Done {
    let text = match arguments.first().map(String::as_str) {
        Some("-") | None => {
            context.say("Importing definitions in JSON from standard input ...");
            std::io::read_to_string(std::io::stdin())
        }
        Some(file) => {
            context.say(format_args!(
                "Importing definitions in JSON from a file at \"{file}\" ..."
            ));
            std::fs::read_to_string(file)
        }
    };
    let text = text.map_err(|error| Failure::new(DATA_ERROR, error.to_string()))?;
    context.post("definitions", &parse_json(&text)?)?;
    context.say("Successfully started definition import.");
    Ok(())
}

fn set_memory_watermark(context: &Context, arguments: &[String]) -> Done {
    let body = match (argument(arguments, 0), arguments.get(1)) {
        ("absolute", Some(value)) => {
            let bytes = crate::config::parse_size(value)
                .map_err(|error| Failure::new(DATA_ERROR, error.to_string()))?;
            context.say(format_args!(
                "Setting memory threshold to {value} bytes ..."
            ));
            json!({ "absolute": bytes })
        }
        (share, None) => {
            let number = share
                .parse::<f64>()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share));
            let number = number.ok_or_else(|| {
                Failure::new(
                    DATA_ERROR,
                    "(argument validation): Bad argument: The threshold should be a fraction between 0.0 and 1.0",
                )
            })?;
            context.say(format_args!("Setting memory threshold to {share} ..."));
            json!({ "relative": number })
        }
        (_, Some(_)) => {
            return Err(Failure::new(
                USAGE,
                "give a fraction, or absolute and a size",
            ));
        }
    };
    context.post("warren/memory-watermark", &body)?;
    Ok(())
}
