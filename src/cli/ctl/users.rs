//! Users and their passwords, tags and limits.

use serde_json::{Map, Value, json};

use crate::admin::percent_encode;

use super::{
    Command, Context, DATA_ERROR, Done, Failure, MANY, NO_USER, SOFTWARE, argument, command,
    json as parse_json, table,
};

pub(super) const COMMANDS: &[Command] = &[
    command(
        "add_user",
        "<username> <password>",
        "Creates a new user in the internal database",
        (1, 2),
        add_user,
    ),
    command(
        "delete_user",
        "<username>",
        "Removes a user from the internal database",
        (1, 1),
        delete_user,
    ),
    command(
        "change_password",
        "<username> <password>",
        "Changes the user password",
        (2, 2),
        change_password,
    ),
    command(
        "clear_password",
        "<username>",
        "Disables password login for a user",
        (1, 1),
        clear_password,
    ),
    command(
        "authenticate_user",
        "<username> <password>",
        "Attempts to authenticate a user",
        (2, 2),
        authenticate_user,
    ),
    command(
        "set_user_tags",
        "<username> <tag> [...]",
        "Sets user tags",
        (1, MANY),
        set_user_tags,
    ),
    command(
        "list_users",
        "",
        "List user names and tags",
        (0, 0),
        list_users,
    ),
    command(
        "hash_password",
        "<password>",
        "Hashes a plaintext password",
        (1, 1),
        hash_password,
    ),
    command(
        "set_user_limits",
        "<username> <definition>",
        "Sets user limits",
        (2, 2),
        set_user_limits,
    ),
    command(
        "clear_user_limits",
        "<username> <limit>|all",
        "Clears user limits",
        (2, 2),
        clear_user_limits,
    ),
    command(
        "list_user_limits",
        "[--user <username>]",
        "Displays configured user limits",
        (0, 1),
        list_user_limits,
    ),
];

fn path(name: &str) -> String {
    format!("users/{}", percent_encode(name))
}

/// The user, or RabbitMQ's complaint that there is none.
fn find(context: &Context, name: &str) -> Result<Map<String, Value>, Failure> {
    match context.find(&path(name))? {
        Some(Value::Object(user)) => Ok(user),
        _ => Err(Failure::new(
            NO_USER,
            format!("User \"{name}\" does not exist"),
        )),
    }
}

fn add_user(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Adding user \"{name}\" ..."));
    let password = match arguments.get(1) {
        Some(password) => password.clone(),
        // As a script would pipe it in.
        None => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|error| Failure::new(DATA_ERROR, error.to_string()))?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if password.is_empty() {
        return Err(Failure::new(DATA_ERROR, "user's password cannot be blank"));
    }
    if context.find(&path(name))?.is_some() {
        return Err(Failure::new(
            SOFTWARE,
            format!("User \"{name}\" already exists"),
        ));
    }
    context.put(&path(name), &json!({ "password": password, "tags": "" }))?;
    context.say("Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more.");
    Ok(())
}

fn delete_user(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Deleting user \"{name}\" ..."));
    match context.delete(&path(name))? {
        true => Ok(()),
        false => Err(Failure::new(
            NO_USER,
            format!("User \"{name}\" does not exist"),
        )),
    }
}

fn change_password(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Changing password for user \"{name}\" ..."));
    let user = find(context, name)?;
    let tags = user.get("tags");
    context.put(
        &path(name),
        &json!({ "password": argument(arguments, 1), "tags": tags }),
    )?;
    Ok(())
}

fn clear_password(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Clearing password for user \"{name}\" ..."));
    let user = find(context, name)?;
    let tags = user.get("tags");
    context.put(&path(name), &json!({ "password_hash": "", "tags": tags }))?;
    Ok(())
}

fn authenticate_user(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Authenticating user \"{name}\" ..."));
    let mut client = context.options.client.clone();
    client.user = name.to_owned();
    client.password = argument(arguments, 1).to_owned();
    let answer = client.send("GET", "whoami", &[], None)?;
    // Who logs in and may not use the API has still logged in.
    if answer.status == 401 && answer.reason() == "Login failed" {
        return Err(Failure::new(
            DATA_ERROR,
            format!(
                "Error: failed to authenticate user \"{name}\"\nuser '{name}' - invalid credentials"
            ),
        ));
    }
    context.say("Success");
    Ok(())
}

fn set_user_tags(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    let tags = arguments.get(1..).unwrap_or_default();
    context.say(format_args!(
        "Setting tags for user \"{name}\" to [{}] ...",
        tags.join(", ")
    ));
    let user = find(context, name)?;
    let changed = json!({
        "tags": tags,
        "password_hash": user.get("password_hash"),
        "hashing_algorithm": user.get("hashing_algorithm"),
    });
    context.put(&path(name), &changed)?;
    Ok(())
}

fn list_users(context: &Context, _: &[String]) -> Done {
    context.say("Listing users ...");
    super::lists::print(context, "users", &["user", "tags"], |row| {
        if let Some(name) = row.get("name").cloned() {
            row.insert("user".to_owned(), name);
        }
    })
}

fn hash_password(context: &Context, arguments: &[String]) -> Done {
    let hashed = context.get(&format!(
        "auth/hash_password/{}",
        percent_encode(argument(arguments, 0))
    ))?;
    out!("{}", table::text(hashed.get("ok").unwrap_or(&Value::Null)));
    Ok(())
}

/// Sets each limit of a definition, as in `{"max-connections": 5}`.
pub(super) fn set_limits(context: &Context, path: &str, definition: &str) -> Done {
    let Value::Object(limits) = parse_json(definition)? else {
        return Err(Failure::new(DATA_ERROR, "limits are an object"));
    };
    for (name, value) in limits {
        context.put(&format!("{path}/{name}"), &json!({ "value": value }))?;
    }
    Ok(())
}

fn set_user_limits(context: &Context, arguments: &[String]) -> Done {
    let (name, definition) = (argument(arguments, 0), argument(arguments, 1));
    context.say(format_args!(
        "Setting user limits to \"{definition}\" for user \"{name}\" ..."
    ));
    find(context, name)?;
    set_limits(
        context,
        &format!("user-limits/{}", percent_encode(name)),
        definition,
    )
}

fn clear_user_limits(context: &Context, arguments: &[String]) -> Done {
    let (name, limit) = (argument(arguments, 0), argument(arguments, 1));
    context.say(format_args!(
        "Clearing \"{limit}\" limits for user \"{name}\" ..."
    ));
    find(context, name)?;
    let limits = match limit {
        "all" => vec!["max-connections", "max-channels"],
        limit => vec![limit],
    };
    for limit in limits {
        context.delete(&format!("user-limits/{}/{limit}", percent_encode(name)))?;
    }
    Ok(())
}

fn list_user_limits(context: &Context, arguments: &[String]) -> Done {
    let path = match arguments.first() {
        Some(name) => format!("user-limits/{}", percent_encode(name)),
        None => "user-limits".to_owned(),
    };
    context.say("Listing limits for all users ...");
    super::lists::print(context, &path, &["user", "limits"], |row| {
        let value = row.get("value").map(Value::to_string).unwrap_or_default();
        row.insert("limits".to_owned(), value.into());
    })
}
