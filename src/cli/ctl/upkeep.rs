//! Looking after a node: stopping it, its disk limit and memory, its log, members of its quorum queues.
//!
//! What RabbitMQ has for clusters, and for a broker that runs on without its applications, has no counterpart in a single
//! process: where a script only wants it done, it is; where something would be promised that does not happen, the
//! command says so and fails.

use serde_json::{Map, Value, json};

use crate::admin::percent_encode;

use super::system::{field, node};
use super::{
    Command, Context, DATA_ERROR, Done, Failure, MANY, UNAVAILABLE, USAGE, argument, command,
    lists, table,
};

pub(super) const COMMANDS: &[Command] = &[
    command("stop", "", "Stops the broker", (0, 1), stop),
    command("shutdown", "", "Stops the broker", (0, 0), stop),
    command("stop_app", "", "Not here: use stop", (0, 0), no_application),
    command(
        "start_app",
        "",
        "Does nothing: a broker that answers runs",
        (0, 0),
        runs_already,
    ),
    command(
        "reset",
        "",
        "Not here: stop the broker and delete its data folder",
        (0, 0),
        no_application,
    ),
    command("force_reset", "", "As reset", (0, 0), no_application),
    command(
        "join_cluster",
        "<node>",
        "Not here: there are no clusters",
        (1, 1),
        no_clusters,
    ),
    command(
        "forget_cluster_node",
        "<node>",
        "Not here: there are no clusters",
        (1, 1),
        no_clusters,
    ),
    command(
        "drain",
        "",
        "Puts the node into maintenance mode: nothing is left to move from a single node",
        (0, 0),
        drained,
    ),
    command("revive", "", "Ends maintenance mode", (0, 0), drained),
    command(
        "await_online_quorum_plus_one",
        "",
        "Waits for further members of queues: there is one node",
        (0, 0),
        drained,
    ),
    command(
        "post_upgrade",
        "",
        "Does nothing: there is nothing to rebalance",
        (0, 0),
        drained,
    ),
    command(
        "sync_queue",
        "[-p <vhost>] <queue>",
        "Does nothing: queues have no mirrors",
        (1, 1),
        sync_queue,
    ),
    command(
        "cancel_sync_queue",
        "[-p <vhost>] <queue>",
        "Does nothing: queues have no mirrors",
        (1, 1),
        sync_queue,
    ),
    command(
        "set_disk_free_limit",
        "<bytes> | mem_relative <fraction>",
        "Sets the least free space",
        (1, 2),
        set_disk_limit,
    ),
    command(
        "memory_breakdown",
        "[--unit gb|mb]",
        "Says what memory is used for",
        (0, 0),
        memory_breakdown,
    ),
    command(
        "log_tail",
        "[-N <lines>]",
        "Prints the latest lines of the log",
        (0, 0),
        log_tail,
    ),
    command(
        "log_tail_stream",
        "",
        "Prints lines of the log as they come, until it is interrupted",
        (0, 0),
        log_tail_stream,
    ),
    command(
        "log_location",
        "",
        "Says where the log goes",
        (0, MANY),
        log_location,
    ),
    command(
        "list_node_auth_attempt_stats",
        "",
        "Says how logins went",
        (0, 0),
        login_attempts,
    ),
    command(
        "list_deprecated_features",
        "",
        "Lists deprecated features: there are none",
        (0, MANY),
        no_features,
    ),
    command(
        "disable",
        "<plugin> [...]",
        "Not here: what is built in stays on",
        (1, MANY),
        no_plugins,
    ),
    command(
        "tls_versions",
        "",
        "Lists TLS versions",
        (0, 0),
        tls_versions,
    ),
    command(
        "quorum_status",
        "[-p <vhost>] <queue>",
        "Says how a quorum queue's members are",
        (1, 1),
        quorum_status,
    ),
    command(
        "peek",
        "[-p <vhost>] <queue> <position>",
        "Shows a message without taking it; the first is 1",
        (2, 2),
        peek,
    ),
    command(
        "grow",
        "<node> all|even",
        "Gives quorum queues members on a node",
        (2, 2),
        grow,
    ),
    command(
        "shrink",
        "<node>",
        "Takes members of quorum queues from a node",
        (1, 1),
        shrink,
    ),
    command(
        "add_member",
        "[-p <vhost>] <queue> <node>",
        "Gives a quorum queue a member",
        (2, 2),
        add_member,
    ),
    command(
        "delete_member",
        "[-p <vhost>] <queue> <node>",
        "Takes a member from a quorum queue",
        (2, 2),
        delete_member,
    ),
];

/// Lines of the log unless something else is said.
const LOG_LINES: usize = 50;
/// Time between two looks at the log.
const LOG_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

fn node_name(context: &Context) -> Result<String, Failure> {
    Ok(table::text(field(&node(context)?, "name")))
}

fn stop(context: &Context, _: &[String]) -> Done {
    let name = node_name(context)?;
    context.say(format_args!("Stopping and halting node {name} ..."));
    context.post("warren/stop", &json!({}))?;
    Ok(())
}

fn no_application(context: &Context, _: &[String]) -> Done {
    node(context)?;
    let reason =
        "the broker and its node are one process here: use stop, and start the service again";
    Err(Failure::new(UNAVAILABLE, reason))
}

fn runs_already(context: &Context, _: &[String]) -> Done {
    let name = node_name(context)?;
    context.say(format_args!("Starting node {name} ..."));
    Ok(())
}

fn no_clusters(context: &Context, _: &[String]) -> Done {
    node(context)?;
    Err(Failure::new(
        UNAVAILABLE,
        "there are no clusters here: a broker is one node",
    ))
}

fn drained(context: &Context, _: &[String]) -> Done {
    let name = node_name(context)?;
    context.say(format_args!("{name} is a single node: nothing has to move"));
    Ok(())
}

fn queue_path(context: &Context, prefix: &str, name: &str) -> String {
    format!("{prefix}/{}/{}", context.vhost(), percent_encode(name))
}

fn sync_queue(context: &Context, arguments: &[String]) -> Done {
    let path = queue_path(context, "queues", argument(arguments, 0));
    context.post(&format!("{path}/actions"), &json!({ "action": "sync" }))?;
    Ok(())
}

fn set_disk_limit(context: &Context, arguments: &[String]) -> Done {
    let body = match (argument(arguments, 0), arguments.get(1)) {
        ("mem_relative", Some(share)) => {
            let number = share.parse::<f64>().ok().filter(|share| *share >= 0.0);
            let number = number.ok_or_else(|| {
                Failure::new(DATA_ERROR, format!("{share} is no fraction of the memory"))
            })?;
            context.say(format_args!(
                "Setting disk free limit on the node to {share} times the total RAM ..."
            ));
            json!({ "mem_relative": number })
        }
        (size, None) => {
            let bytes = crate::config::parse_size(size)
                .map_err(|error| Failure::new(DATA_ERROR, error.to_string()))?;
            context.say(format_args!(
                "Setting disk free limit on the node to {size} bytes ..."
            ));
            json!({ "absolute": bytes })
        }
        (_, Some(_)) => {
            let reason = "give a size, or mem_relative and a fraction";
            return Err(Failure::new(USAGE, reason));
        }
    };
    context.post("warren/disk-limit", &body)?;
    Ok(())
}

fn memory_breakdown(context: &Context, _: &[String]) -> Done {
    let name = node_name(context)?;
    context.say(format_args!("Reporting memory breakdown on node {name}..."));
    let answer = context.get(&format!("nodes/{}/memory", percent_encode(&name)))?;
    let memory = field(&answer, "memory");
    let total = field(field(memory, "total"), "rss").as_u64().unwrap_or(0);
    let mut parts: Vec<(&str, u64)> = memory
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, bytes)| Some((name.as_str(), bytes.as_u64()?)))
        .collect();
    parts.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (name, bytes) in parts {
        #[allow(clippy::cast_precision_loss, reason = "shown with four digits")]
        let (mebibytes, percent) = (
            bytes as f64 / 1_048_576.0,
            bytes as f64 * 100.0 / total.max(1) as f64,
        );
        out!("{name}: {mebibytes:.4} MiB ({percent:.2}%)");
    }
    Ok(())
}

/// Prints lines of the log behind a number; gives the last one's.
fn print_log(context: &Context, after: u64, count: usize) -> Result<u64, Failure> {
    let log = context.get(&format!("warren/log?after={after}&count={count}"))?;
    for line in field(&log, "lines").as_array().into_iter().flatten() {
        let text = |name: &str| table::text(field(line, name));
        out!(
            "{} {} {}: {}",
            text("at_unix_ms"),
            text("level"),
            text("target"),
            text("message")
        );
    }
    Ok(field(&log, "last").as_u64().unwrap_or(after))
}

fn log_tail(context: &Context, _: &[String]) -> Done {
    let count = context.options.limit.unwrap_or(LOG_LINES);
    print_log(context, 0, count).map(|_| ())
}

fn log_tail_stream(context: &Context, _: &[String]) -> Done {
    let mut last = print_log(context, 0, context.options.limit.unwrap_or(LOG_LINES))?;
    loop {
        std::thread::sleep(LOG_PAUSE);
        last = print_log(context, last, usize::MAX)?;
    }
}

fn log_location(context: &Context, _: &[String]) -> Done {
    node(context)?;
    out!("<stderr>");
    Ok(())
}

fn login_attempts(context: &Context, _: &[String]) -> Done {
    let name = node_name(context)?;
    context.say("Listing authentication attempts for node ...");
    let columns = [
        "protocol",
        "auth_attempts",
        "auth_attempts_failed",
        "auth_attempts_succeeded",
    ];
    let path = format!("auth/attempts/{}", percent_encode(&name));
    lists::print(context, &path, &columns, |_| ())
}

fn no_features(context: &Context, _: &[String]) -> Done {
    context.say("Listing deprecated features ...");
    lists::print(
        context,
        "deprecated-features",
        &["name", "deprecation_phase"],
        |_| (),
    )
}

fn no_plugins(_: &Context, _: &[String]) -> Done {
    let reason = "what RabbitMQ has as plugins is built in here and stays on; settings open and close its listeners";
    Err(Failure::new(UNAVAILABLE, reason))
}

fn tls_versions(context: &Context, _: &[String]) -> Done {
    node(context)?;
    context.say("Listing all TLS versions supported by the runtime...");
    out!("tlsv1.3\ntlsv1.2");
    Ok(())
}

fn rows(answer: Value) -> Vec<Map<String, Value>> {
    let rows = match answer {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    };
    let objects = rows.into_iter().filter_map(|row| match row {
        Value::Object(row) => Some(row),
        _ => None,
    });
    objects.collect()
}

fn quorum_status(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Status of quorum queue {name} on node ..."));
    let path = queue_path(context, "queues/quorum", name);
    let status = rows(context.get(&format!("{path}/status"))?);
    let columns = [
        "Node Name",
        "Raft State",
        "Membership",
        "Last Log Index",
        "Commit Index",
        "Snapshot Index",
        "Term",
        "Machine Version",
    ];
    table::print(&context.options, &columns, &status);
    Ok(())
}

fn peek(context: &Context, arguments: &[String]) -> Done {
    let (name, position) = (argument(arguments, 0), argument(arguments, 1));
    let position: u64 = position.parse().ok().filter(|at| *at > 0).ok_or_else(|| {
        Failure::new(
            DATA_ERROR,
            "(argument validation): Position must be a positive integer",
        )
    })?;
    context.say(format_args!(
        "Peeking at quorum queue '{name}' at position {position} ..."
    ));
    let asked = json!({ "count": 1, "offset": position - 1, "encoding": "auto" });
    let path = queue_path(context, "queues", name);
    let messages = rows(context.post(&format!("{path}/peek"), &asked)?);
    let Some(message) = messages.first() else {
        return Err(Failure::new(UNAVAILABLE, "No message was found"));
    };
    if context.options.formatter == super::options::Formatter::Json {
        out!("{}", Value::Object(message.clone()));
        return Ok(());
    }
    out!("keys\tvalues");
    for (key, value) in message {
        out!("{key}\t{}", table::text(value));
    }
    Ok(())
}

fn grow(context: &Context, arguments: &[String]) -> Done {
    let node = argument(arguments, 0);
    context.say(format_args!("Growing quorum queues on {node}..."));
    let asked = json!({ "strategy": argument(arguments, 1) });
    context.post(
        &format!("queues/quorum/replicas/on/{}/grow", percent_encode(node)),
        &asked,
    )?;
    Ok(())
}

fn shrink(context: &Context, arguments: &[String]) -> Done {
    let node = argument(arguments, 0);
    context.say(format_args!("Shrinking quorum queues on {node}..."));
    let path = format!("queues/quorum/replicas/on/{}/shrink", percent_encode(node));
    let kept = rows(context.expect(context.send("DELETE", &path, None)?)?);
    table::print(
        &context.options,
        &["vhost", "name", "result", "reason"],
        &kept,
    );
    match kept.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(UNAVAILABLE, "queues have no other member")),
    }
}

fn change_member(context: &Context, method: &str, verb: &str, arguments: &[String]) -> Done {
    let path = queue_path(context, "queues/quorum", argument(arguments, 0));
    let asked = json!({ "node": argument(arguments, 1) });
    let answer = context.send(method, &format!("{path}/replicas/{verb}"), Some(&asked))?;
    context.expect(answer).map(|_| ())
}

fn add_member(context: &Context, arguments: &[String]) -> Done {
    change_member(context, "POST", "add", arguments)
}

fn delete_member(context: &Context, arguments: &[String]) -> Done {
    change_member(context, "DELETE", "delete", arguments)
}
