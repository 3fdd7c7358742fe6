//! What there is: queues, exchanges, bindings, connections, channels, consumers.

use serde_json::{Map, Value};

use crate::admin::percent_encode;

use super::{Command, Context, Done, Failure, MANY, UNAVAILABLE, USAGE, argument, command, table};

pub(super) const COMMANDS: &[Command] = &[
    command(
        "list_queues",
        "[-p <vhost>] [<column> ...]",
        "Lists queues and their properties",
        (0, MANY),
        list_queues,
    ),
    command(
        "list_exchanges",
        "[-p <vhost>] [<column> ...]",
        "Lists exchanges",
        (0, MANY),
        list_exchanges,
    ),
    command(
        "list_bindings",
        "[-p <vhost>] [<column> ...]",
        "Lists all bindings on a vhost",
        (0, MANY),
        list_bindings,
    ),
    command(
        "list_connections",
        "[<column> ...]",
        "Lists AMQP 0.9.1 connections for the node",
        (0, MANY),
        list_connections,
    ),
    command(
        "list_channels",
        "[<column> ...]",
        "Lists all channels in the node",
        (0, MANY),
        list_channels,
    ),
    command(
        "list_consumers",
        "[-p <vhost>]",
        "Lists all consumers for a vhost",
        (0, MANY),
        list_consumers,
    ),
    command(
        "list_unresponsive_queues",
        "",
        "Lists queues that do not respond",
        (0, MANY),
        list_unresponsive_queues,
    ),
    command(
        "delete_queue",
        "[-p <vhost>] <queue> [-e] [--if-unused]",
        "Deletes a queue",
        (1, 1),
        delete_queue,
    ),
    command(
        "purge_queue",
        "[-p <vhost>] <queue>",
        "Purges a queue (removes all messages in it)",
        (1, 1),
        purge_queue,
    ),
    command(
        "close_connection",
        "<name> <reason>",
        "Instructs the broker to close a connection",
        (1, 2),
        close_connection,
    ),
    command(
        "close_all_connections",
        "[-p <vhost>] [--global] [--limit <n>] <reason>",
        "Closes all connections of a vhost or of the node",
        (0, 1),
        close_all_connections,
    ),
    command(
        "close_all_user_connections",
        "<username> <reason>",
        "Closes all connections of a user",
        (1, 2),
        close_all_user_connections,
    ),
];

const QUEUE_COLUMNS: &[&str] = &[
    "name",
    "durable",
    "auto_delete",
    "arguments",
    "policy",
    "operator_policy",
    "effective_policy_definition",
    "pid",
    "owner_pid",
    "exclusive",
    "exclusive_consumer_pid",
    "exclusive_consumer_tag",
    "single_active_consumer_pid",
    "single_active_consumer_tag",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "messages_ready_ram",
    "messages_unacknowledged_ram",
    "messages_ram",
    "messages_persistent",
    "message_bytes",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "message_bytes_ram",
    "message_bytes_persistent",
    "head_message_timestamp",
    "disk_reads",
    "disk_writes",
    "consumers",
    "consumer_utilisation",
    "consumer_capacity",
    "memory",
    "slave_pids",
    "synchronised_slave_pids",
    "state",
    "type",
    "leader",
    "members",
    "online",
    "vhost",
];
const EXCHANGE_COLUMNS: &[&str] = &[
    "name",
    "type",
    "durable",
    "auto_delete",
    "internal",
    "arguments",
    "policy",
    "vhost",
];
const BINDING_COLUMNS: &[&str] = &[
    "source_name",
    "source_kind",
    "destination_name",
    "destination_kind",
    "routing_key",
    "arguments",
    "vhost",
];
const CONNECTION_COLUMNS: &[&str] = &[
    "pid",
    "name",
    "port",
    "host",
    "peer_port",
    "peer_host",
    "ssl",
    "ssl_protocol",
    "ssl_key_exchange",
    "ssl_cipher",
    "ssl_hash",
    "peer_cert_subject",
    "peer_cert_issuer",
    "peer_cert_validity",
    "state",
    "channels",
    "protocol",
    "auth_mechanism",
    "user",
    "vhost",
    "timeout",
    "frame_max",
    "channel_max",
    "client_properties",
    "recv_oct",
    "recv_cnt",
    "send_oct",
    "send_cnt",
    "send_pend",
    "connected_at",
    "type",
    "node",
];
const CHANNEL_COLUMNS: &[&str] = &[
    "pid",
    "connection",
    "name",
    "number",
    "user",
    "vhost",
    "transactional",
    "confirm",
    "consumer_count",
    "messages_unacknowledged",
    "messages_uncommitted",
    "acks_uncommitted",
    "messages_unconfirmed",
    "prefetch_count",
    "global_prefetch_count",
    "state",
    "node",
];

/// The columns asked for, if all are known; those of the default if none is.
pub(super) fn columns<'a>(
    asked: &'a [String],
    known: &[&'a str],
    default: &[&'a str],
) -> Result<Vec<&'a str>, Failure> {
    // Some scripts separate them with commas.
    let asked: Vec<&str> = asked
        .iter()
        .flat_map(|word| word.split([',', ' ']))
        .filter(|word| !word.is_empty())
        .collect();
    let unknown: Vec<_> = asked
        .iter()
        .filter(|column| !known.contains(column))
        .copied()
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::new(
            USAGE,
            format!(
                "(argument validation): Info key(s) {} are not supported",
                unknown.join(", ")
            ),
        ));
    }
    match asked.is_empty() {
        true => Ok(default.to_vec()),
        false => Ok(asked),
    }
}

/// Prints what a path lists, each row changed first.
pub(super) fn print(
    context: &Context,
    path: &str,
    columns: &[&str],
    change: impl Fn(&mut Map<String, Value>),
) -> Done {
    print_where(context, path, columns, |_| true, change)
}

pub(super) fn print_where(
    context: &Context,
    path: &str,
    columns: &[&str],
    is_meant: impl Fn(&Map<String, Value>) -> bool,
    change: impl Fn(&mut Map<String, Value>),
) -> Done {
    let mut rows = rows(context.get(path)?);
    rows.retain(|row| is_meant(row));
    rows.iter_mut().for_each(change);
    table::print(&context.options, columns, &rows);
    Ok(())
}

fn rows(list: Value) -> Vec<Map<String, Value>> {
    let Value::Array(values) = list else {
        return Vec::new();
    };
    let rows = values.into_iter().filter_map(|value| match value {
        Value::Object(row) => Some(row),
        _ => None,
    });
    rows.collect()
}

/// Copies a field to another name.
fn alias(row: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = row.get(from).cloned() {
        row.insert(to.to_owned(), value);
    }
}

/// A vhost that is not there is said, and is no failure, as in RabbitMQ.
fn vhost_exists(context: &Context) -> Result<bool, Failure> {
    let found = context
        .find(&format!("vhosts/{}", context.vhost()))?
        .is_some();
    if !found {
        eprintln!("Virtual host '{}' does not exist", context.options.vhost);
    }
    Ok(found)
}

fn list_queues(context: &Context, arguments: &[String]) -> Done {
    let columns = columns(arguments, QUEUE_COLUMNS, &["name", "messages"])?;
    context.say("Timeout: 60.0 seconds ...");
    context.say(format_args!(
        "Listing queues for vhost {} ...",
        context.options.vhost
    ));
    if !vhost_exists(context)? {
        return Ok(());
    }
    let path = format!("queues/{}", context.vhost());
    print(context, &path, &columns, |row| alias(row, "name", "pid"))
}

fn list_unresponsive_queues(context: &Context, _: &[String]) -> Done {
    context.say(format_args!(
        "Listing unresponsive queues for vhost {} ...",
        context.options.vhost
    ));
    context.get(&format!("vhosts/{}", context.vhost()))?;
    Ok(())
}

fn list_exchanges(context: &Context, arguments: &[String]) -> Done {
    let columns = columns(arguments, EXCHANGE_COLUMNS, &["name", "type"])?;
    context.say(format_args!(
        "Listing exchanges for vhost {} ...",
        context.options.vhost
    ));
    if !vhost_exists(context)? {
        return Ok(());
    }
    print(
        context,
        &format!("exchanges/{}", context.vhost()),
        &columns,
        |_| (),
    )
}

fn list_bindings(context: &Context, arguments: &[String]) -> Done {
    let columns = columns(
        arguments,
        BINDING_COLUMNS,
        BINDING_COLUMNS.get(..6).unwrap_or_default(),
    )?;
    context.say(format_args!(
        "Listing bindings for vhost {}...",
        context.options.vhost
    ));
    if !vhost_exists(context)? {
        return Ok(());
    }
    print(
        context,
        &format!("bindings/{}", context.vhost()),
        &columns,
        |row| {
            alias(row, "source", "source_name");
            row.insert("source_kind".to_owned(), "exchange".into());
            alias(row, "destination", "destination_name");
            alias(row, "destination_type", "destination_kind");
        },
    )
}

fn list_connections(context: &Context, arguments: &[String]) -> Done {
    let default = ["user", "peer_host", "peer_port", "state"];
    let columns = columns(arguments, CONNECTION_COLUMNS, &default)?;
    context.say("Listing connections ...");
    // A connection has no process here: its name stands for it.
    print(context, "connections", &columns, |row| {
        alias(row, "name", "pid")
    })
}

fn list_channels(context: &Context, arguments: &[String]) -> Done {
    let default = ["pid", "user", "consumer_count", "messages_unacknowledged"];
    let columns = columns(arguments, CHANNEL_COLUMNS, &default)?;
    context.say("Listing channels ...");
    print(context, "channels", &columns, |row| {
        alias(row, "name", "pid");
        let connection = row
            .get("connection_details")
            .and_then(|details| details.get("name"));
        if let Some(connection) = connection.cloned() {
            row.insert("connection".to_owned(), connection);
        }
    })
}

fn list_consumers(context: &Context, arguments: &[String]) -> Done {
    let known = [
        "queue_name",
        "channel_pid",
        "consumer_tag",
        "ack_required",
        "prefetch_count",
        "active",
        "activity_status",
        "arguments",
    ];
    let columns = columns(arguments, &known, &known)?;
    context.say(format_args!(
        "Listing consumers in vhost {} ...",
        context.options.vhost
    ));
    print(
        context,
        &format!("consumers/{}", context.vhost()),
        &columns,
        |row| {
            let inner = |row: &Map<String, Value>, outer: &str| {
                row.get(outer)
                    .and_then(|object| object.get("name"))
                    .cloned()
                    .unwrap_or(Value::Null)
            };
            let (queue, channel) = (inner(row, "queue"), inner(row, "channel_details"));
            row.insert("queue_name".to_owned(), queue);
            row.insert("channel_pid".to_owned(), channel);
        },
    )
}

fn queue_path(context: &Context, name: &str) -> String {
    format!("queues/{}/{}", context.vhost(), percent_encode(name))
}

fn delete_queue(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    let options = &context.options;
    context.say(format_args!(
        "Deleting queue '{name}' on vhost '{}' ...",
        options.vhost
    ));
    let path = queue_path(context, name);
    let Some(queue) = context.find(&path)? else {
        return Err(Failure::new(USAGE, "Queue not found"));
    };
    let path = format!(
        "{path}?if-empty={}&if-unused={}",
        options.if_empty, options.if_unused
    );
    context.delete(&path)?;
    let count = queue
        .get("messages_ready")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    context.say(format_args!(
        "Queue was successfully deleted with {count} ready messages"
    ));
    Ok(())
}

fn purge_queue(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!(
        "Purging queue '{name}' in vhost '{}' ...",
        context.options.vhost
    ));
    match context.delete(&format!("{}/contents", queue_path(context, name)))? {
        true => Ok(()),
        false => Err(Failure::new(UNAVAILABLE, "not_found")),
    }
}

fn close(context: &Context, name: &str, reason: &str) -> Result<bool, Failure> {
    let path = format!("connections/{}", percent_encode(name));
    let answer = context
        .options
        .client
        .send("DELETE", &path, &[("X-Reason", reason)], None)?;
    match answer.status {
        404 => Ok(false),
        _ => context.expect(answer).map(|_| true),
    }
}

fn reason(arguments: &[String], index: usize) -> &str {
    match argument(arguments, index) {
        "" => "Closed via rabbitmqctl",
        reason => reason,
    }
}

fn close_connection(context: &Context, arguments: &[String]) -> Done {
    let (name, reason) = (argument(arguments, 0), reason(arguments, 1));
    context.say(format_args!(
        "Closing connection {name}, reason: {reason}..."
    ));
    match close(context, name, reason)? {
        true => Ok(()),
        false => Err(Failure::new(
            UNAVAILABLE,
            format!("there is no connection {name}"),
        )),
    }
}

fn close_all(context: &Context, path: &str, reason: &str) -> Done {
    let mut connections = rows(context.get(path)?);
    connections.truncate(context.options.limit.unwrap_or(usize::MAX));
    let mut count = 0;
    for connection in &connections {
        let name = connection
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        count += usize::from(close(context, name, reason)?);
    }
    context.say(format_args!("Closed {count} connections"));
    Ok(())
}

fn close_all_connections(context: &Context, arguments: &[String]) -> Done {
    let reason = reason(arguments, 0);
    if context.options.global {
        context.say(format_args!("Closing all connections, reason: {reason}..."));
        return close_all(context, "connections", reason);
    }
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Closing all connections in vhost {vhost}, reason: {reason}..."
    ));
    close_all(
        context,
        &format!("vhosts/{}/connections", context.vhost()),
        reason,
    )
}

fn close_all_user_connections(context: &Context, arguments: &[String]) -> Done {
    let (user, reason) = (argument(arguments, 0), reason(arguments, 1));
    context.say(format_args!(
        "Closing connections of user {user}, reason: {reason}..."
    ));
    close_all(
        context,
        &format!("connections/username/{}", percent_encode(user)),
        reason,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_checked() {
        let asked = ["name,messages".to_owned(), "consumers".to_owned()];
        let chosen = columns(&asked, QUEUE_COLUMNS, &["name"]).expect("known");
        assert_eq!(chosen, ["name", "messages", "consumers"]);
        assert_eq!(
            columns(&[], QUEUE_COLUMNS, &["name"]).expect("default"),
            ["name"]
        );
        let bogus = ["bogus".to_owned()];
        let failure = columns(&bogus, QUEUE_COLUMNS, &["name"]);
        assert_eq!(failure.expect_err("unknown").code, USAGE);
        assert!(rows(json!({"a": 1})).is_empty());
    }
}
