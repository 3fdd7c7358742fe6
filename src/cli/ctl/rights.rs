//! Permissions and topic permissions.

use serde_json::json;

use crate::admin::percent_encode;

use super::{Command, Context, Done, Failure, NO_USER, argument, command, lists};

pub(super) const COMMANDS: &[Command] = &[
    command(
        "set_permissions",
        "[-p <vhost>] <username> <conf> <write> <read>",
        "Sets user permissions for a vhost",
        (4, 4),
        set_permissions,
    ),
    command(
        "clear_permissions",
        "[-p <vhost>] <username>",
        "Revokes user permissions for a vhost",
        (1, 1),
        clear_permissions,
    ),
    command(
        "list_permissions",
        "[-p <vhost>]",
        "Lists user permissions in a virtual host",
        (0, 0),
        list_permissions,
    ),
    command(
        "list_user_permissions",
        "<username>",
        "Lists permissions of a user across all virtual hosts",
        (1, 1),
        list_user_permissions,
    ),
    command(
        "set_topic_permissions",
        "[-p <vhost>] <username> <exchange> <write> <read>",
        "Sets user topic permissions for an exchange",
        (4, 4),
        set_topic_permissions,
    ),
    command(
        "clear_topic_permissions",
        "[-p <vhost>] <username> [<exchange>]",
        "Clears user topic permissions for a vhost or exchange",
        (1, 2),
        clear_topic_permissions,
    ),
    command(
        "list_topic_permissions",
        "[-p <vhost>]",
        "Lists topic permissions in a virtual host",
        (0, 0),
        list_topic_permissions,
    ),
    command(
        "list_user_topic_permissions",
        "<username>",
        "Lists user topic permissions",
        (1, 1),
        list_user_topic_permissions,
    ),
];

fn check_user(context: &Context, name: &str) -> Done {
    match context.find(&format!("users/{}", percent_encode(name)))? {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            NO_USER,
            format!("User \"{name}\" does not exist"),
        )),
    }
}

fn path(context: &Context, kind: &str, user: &str) -> String {
    format!("{kind}/{}/{}", context.vhost(), percent_encode(user))
}

fn set_permissions(context: &Context, arguments: &[String]) -> Done {
    let user = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_user(context, user)?;
    let rights = json!({
        "configure": argument(arguments, 1),
        "write": argument(arguments, 2),
        "read": argument(arguments, 3),
    });
    context.put(&path(context, "permissions", user), &rights)?;
    Ok(())
}

fn clear_permissions(context: &Context, arguments: &[String]) -> Done {
    let user = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_user(context, user)?;
    context.delete(&path(context, "permissions", user))?;
    Ok(())
}

fn list_permissions(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Listing permissions for vhost \"{vhost}\" ..."
    ));
    let path = format!("vhosts/{}/permissions", context.vhost());
    lists::print(
        context,
        &path,
        &["user", "configure", "write", "read"],
        |_| (),
    )
}

fn list_user_permissions(context: &Context, arguments: &[String]) -> Done {
    let user = argument(arguments, 0);
    context.say(format_args!("Listing permissions for user \"{user}\" ..."));
    check_user(context, user)?;
    let path = format!("users/{}/permissions", percent_encode(user));
    lists::print(
        context,
        &path,
        &["vhost", "configure", "write", "read"],
        |_| (),
    )
}

fn set_topic_permissions(context: &Context, arguments: &[String]) -> Done {
    let (user, exchange) = (argument(arguments, 0), argument(arguments, 1));
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_user(context, user)?;
    let rights = json!({
        "exchange": exchange,
        "write": argument(arguments, 2),
        "read": argument(arguments, 3),
    });
    context.put(&path(context, "topic-permissions", user), &rights)?;
    Ok(())
}

fn clear_topic_permissions(context: &Context, arguments: &[String]) -> Done {
    let user = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_user(context, user)?;
    let mut path = path(context, "topic-permissions", user);
    if let Some(exchange) = arguments.get(1) {
        path = format!("{path}/{}", percent_encode(exchange));
    }
    context.delete(&path)?;
    Ok(())
}

fn list_topic_permissions(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Listing topic permissions for vhost \"{vhost}\" ..."
    ));
    let path = format!("vhosts/{}/topic-permissions", context.vhost());
    lists::print(
        context,
        &path,
        &["user", "exchange", "write", "read"],
        |_| (),
    )
}

fn list_user_topic_permissions(context: &Context, arguments: &[String]) -> Done {
    let user = argument(arguments, 0);
    context.say(format_args!(
        "Listing topic permissions for user \"{user}\" ..."
    ));
    check_user(context, user)?;
    let path = format!("users/{}/topic-permissions", percent_encode(user));
    lists::print(
        context,
        &path,
        &["vhost", "exchange", "write", "read"],
        |_| (),
    )
}
