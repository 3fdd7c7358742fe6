//! Vhosts, policies, parameters and limits.

use serde_json::{Value, json};

use crate::admin::percent_encode;

use super::{
    Command, Context, DATA_ERROR, Done, Failure, MANY, UNAVAILABLE, argument, command,
    json as parse_json, lists, users,
};

pub(super) const COMMANDS: &[Command] = &[
    command(
        "add_vhost",
        "<vhost>",
        "Creates a virtual host",
        (1, 1),
        add_vhost,
    ),
    command(
        "delete_vhost",
        "<vhost>",
        "Deletes a virtual host",
        (1, 1),
        delete_vhost,
    ),
    command(
        "list_vhosts",
        "[<column> ...]",
        "Lists virtual hosts",
        (0, MANY),
        list_vhosts,
    ),
    command(
        "set_vhost_tags",
        "<vhost> <tag> [...]",
        "Sets virtual host tags",
        (1, MANY),
        set_vhost_tags,
    ),
    command(
        "restart_vhost",
        "[-p <vhost>]",
        "Restarts a failed vhost",
        (0, 0),
        restart_vhost,
    ),
    command(
        "trace_on",
        "[-p <vhost>]",
        "Starts tracing",
        (0, 0),
        trace_on,
    ),
    command(
        "trace_off",
        "[-p <vhost>]",
        "Stops tracing",
        (0, 0),
        trace_off,
    ),
    command(
        "set_policy",
        "[-p <vhost>] [--priority <n>] [--apply-to <what>] <name> <pattern> <definition>",
        "Sets or updates a policy",
        (3, 3),
        set_policy,
    ),
    command(
        "clear_policy",
        "[-p <vhost>] <name>",
        "Clears (removes) a policy",
        (1, 1),
        clear_policy,
    ),
    command(
        "list_policies",
        "[-p <vhost>]",
        "Lists all policies in a virtual host",
        (0, 0),
        list_policies,
    ),
    command(
        "set_operator_policy",
        "[-p <vhost>] [--priority <n>] [--apply-to <what>] <name> <pattern> <definition>",
        "Sets an operator policy",
        (3, 3),
        set_operator_policy,
    ),
    command(
        "clear_operator_policy",
        "[-p <vhost>] <name>",
        "Clears an operator policy",
        (1, 1),
        clear_operator_policy,
    ),
    command(
        "list_operator_policies",
        "[-p <vhost>]",
        "Lists operator policies of a virtual host",
        (0, 0),
        list_operator_policies,
    ),
    command(
        "set_parameter",
        "[-p <vhost>] <component> <name> <value>",
        "Sets a runtime parameter",
        (3, 3),
        set_parameter,
    ),
    command(
        "clear_parameter",
        "[-p <vhost>] <component> <name>",
        "Clears a runtime parameter",
        (2, 2),
        clear_parameter,
    ),
    command(
        "list_parameters",
        "[-p <vhost>]",
        "Lists runtime parameters for a virtual host",
        (0, 0),
        list_parameters,
    ),
    command(
        "set_global_parameter",
        "<name> <value>",
        "Sets a global runtime parameter",
        (2, 2),
        set_global_parameter,
    ),
    command(
        "clear_global_parameter",
        "<name>",
        "Clears a global runtime parameter",
        (1, 1),
        clear_global_parameter,
    ),
    command(
        "list_global_parameters",
        "",
        "Lists global runtime parameters",
        (0, 0),
        list_global_parameters,
    ),
    command(
        "set_vhost_limits",
        "[-p <vhost>] <definition>",
        "Sets virtual host limits",
        (1, 1),
        set_vhost_limits,
    ),
    command(
        "clear_vhost_limits",
        "[-p <vhost>]",
        "Clears virtual host limits",
        (0, 0),
        clear_vhost_limits,
    ),
    command(
        "list_vhost_limits",
        "[-p <vhost>] [--global]",
        "Displays configured virtual host limits",
        (0, 0),
        list_vhost_limits,
    ),
    command(
        "set_cluster_name",
        "<name>",
        "Sets the cluster name",
        (1, 1),
        set_cluster_name,
    ),
];

fn add_vhost(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Adding vhost \"{name}\" ..."));
    let path = format!("vhosts/{}", percent_encode(name));
    if context.find(&path)?.is_none() {
        context.put(&path, &json!({}))?;
    }
    Ok(())
}

fn delete_vhost(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Deleting vhost \"{name}\" ..."));
    match context.delete(&format!("vhosts/{}", percent_encode(name)))? {
        true => Ok(()),
        false => Err(Failure::new(
            DATA_ERROR,
            format!("Virtual host '{name}' does not exist"),
        )),
    }
}

fn list_vhosts(context: &Context, arguments: &[String]) -> Done {
    context.say("Listing vhosts ...");
    let known = [
        "name",
        "description",
        "tags",
        "default_queue_type",
        "tracing",
        "cluster_state",
        "metadata",
    ];
    let columns = lists::columns(arguments, &known, &["name"])?;
    lists::print(context, "vhosts", &columns, |_| ())
}

fn change_vhost(context: &Context, name: &str, change: (&str, Value)) -> Done {
    let path = format!("vhosts/{}", percent_encode(name));
    let Some(Value::Object(mut vhost)) = context.find(&path)? else {
        let reason = format!("Virtual host '{name}' does not exist");
        return Err(Failure::new(DATA_ERROR, reason));
    };
    vhost.insert(change.0.to_owned(), change.1);
    vhost.remove("metadata");
    context.put(&path, &Value::Object(vhost))?;
    Ok(())
}

fn set_vhost_tags(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    let tags = arguments.get(1..).unwrap_or_default();
    context.say(format_args!(
        "Setting tags for virtual host \"{name}\" to [{}] ...",
        tags.join(", ")
    ));
    change_vhost(context, name, ("tags", json!(tags)))
}

fn restart_vhost(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!("Trying to restart vhost '{vhost}' ..."));
    context.get(&format!("vhosts/{}", context.vhost()))?;
    context.say(format_args!("Vhost '{vhost}' is already running"));
    Ok(())
}

fn trace_on(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!("Starting tracing for vhost \"{vhost}\" ..."));
    change_vhost(context, vhost, ("tracing", json!(true)))?;
    context.say(format_args!("Trace enabled for vhost {vhost}"));
    Ok(())
}

fn trace_off(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!("Stopping tracing for vhost \"{vhost}\" ..."));
    change_vhost(context, vhost, ("tracing", json!(false)))?;
    context.say(format_args!("Trace disabled for vhost {vhost}"));
    Ok(())
}

fn put_policy(context: &Context, kind: &str, arguments: &[String]) -> Done {
    let options = &context.options;
    let name = argument(arguments, 0);
    let priority: i64 = options
        .priority
        .parse()
        .map_err(|_| Failure::new(DATA_ERROR, "--priority needs a whole number"))?;
    let policy = json!({
        "pattern": argument(arguments, 1),
        "definition": parse_json(argument(arguments, 2))?,
        "priority": priority,
        "apply-to": options.apply_to,
    });
    let path = format!("{kind}/{}/{}", context.vhost(), percent_encode(name));
    context.put(&path, &policy)?;
    Ok(())
}

fn set_policy(context: &Context, arguments: &[String]) -> Done {
    let options = &context.options;
    context.say(format_args!(
        "Setting policy \"{}\" for pattern \"{}\" to \"{}\" with priority \"{}\" for vhost \"{}\" ...",
        argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), options.priority, options.vhost
    ));
    put_policy(context, "policies", arguments)
}

fn set_operator_policy(context: &Context, arguments: &[String]) -> Done {
    let options = &context.options;
    context.say(format_args!(
        "Setting operator policy override \"{}\" for pattern \"{}\" to \"{}\" with priority \"{}\" for vhost \"{}\" ...",
        argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), options.priority, options.vhost
    ));
    put_policy(context, "operator-policies", arguments)
}

fn clear(context: &Context, path: &str) -> Done {
    match context.delete(path)? {
        true => Ok(()),
        false => Err(Failure::new(UNAVAILABLE, "Parameter does not exist")),
    }
}

fn clear_policy(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Clearing policy \"{name}\" on vhost \"{vhost}\" ..."
    ));
    clear(
        context,
        &format!("policies/{}/{}", context.vhost(), percent_encode(name)),
    )
}

fn clear_operator_policy(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Clearing operator policy \"{name}\" on vhost \"{vhost}\" ..."
    ));
    clear(
        context,
        &format!(
            "operator-policies/{}/{}",
            context.vhost(),
            percent_encode(name)
        ),
    )
}

const POLICY_COLUMNS: [&str; 6] = [
    "vhost",
    "name",
    "pattern",
    "apply-to",
    "definition",
    "priority",
];

fn print_policies(context: &Context, kind: &str) -> Done {
    let path = format!("{kind}/{}", context.vhost());
    lists::print(context, &path, &POLICY_COLUMNS, |row| {
        if context.options.formatter != super::options::Formatter::Json
            && let Some(definition) = row.get("definition").map(Value::to_string)
        {
            row.insert("definition".to_owned(), definition.into());
        }
    })
}

fn list_policies(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!("Listing policies for vhost \"{vhost}\" ..."));
    print_policies(context, "policies")
}

fn list_operator_policies(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Listing operator policy overrides for vhost \"{vhost}\" ..."
    ));
    print_policies(context, "operator-policies")
}

fn set_parameter(context: &Context, arguments: &[String]) -> Done {
    let (component, name, value) = (
        argument(arguments, 0),
        argument(arguments, 1),
        argument(arguments, 2),
    );
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Setting runtime parameter \"{name}\" for component \"{component}\" to \"{value}\" in vhost \"{vhost}\" ..."
    ));
    let path = format!(
        "parameters/{}/{}/{}",
        percent_encode(component),
        context.vhost(),
        percent_encode(name)
    );
    context.put(&path, &json!({ "value": parse_json(value)? }))?;
    Ok(())
}

fn clear_parameter(context: &Context, arguments: &[String]) -> Done {
    let (component, name) = (argument(arguments, 0), argument(arguments, 1));
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Clearing runtime parameter \"{name}\" for component \"{component}\" on vhost \"{vhost}\" ..."
    ));
    clear(
        context,
        &format!(
            "parameters/{}/{}/{}",
            percent_encode(component),
            context.vhost(),
            percent_encode(name)
        ),
    )
}

fn with_json(row: &mut serde_json::Map<String, Value>) {
    if let Some(value) = row.get("value").map(Value::to_string) {
        row.insert("value".to_owned(), value.into());
    }
}

fn list_parameters(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Listing runtime parameters for vhost \"{vhost}\" ..."
    ));
    let own = vhost.clone();
    lists::print_where(
        context,
        "parameters",
        &["component", "name", "value"],
        move |row| row.get("vhost").and_then(Value::as_str) == Some(&own),
        with_json,
    )
}

fn set_global_parameter(context: &Context, arguments: &[String]) -> Done {
    let (name, value) = (argument(arguments, 0), argument(arguments, 1));
    context.say(format_args!(
        "Setting global runtime parameter \"{name}\" to \"{value}\" ..."
    ));
    let path = format!("global-parameters/{}", percent_encode(name));
    context.put(&path, &json!({ "value": parse_json(value)? }))?;
    Ok(())
}

fn clear_global_parameter(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!(
        "Clearing global runtime parameter \"{name}\" ..."
    ));
    clear(
        context,
        &format!("global-parameters/{}", percent_encode(name)),
    )
}

fn list_global_parameters(context: &Context, _: &[String]) -> Done {
    context.say("Listing global runtime parameters ...");
    lists::print(context, "global-parameters", &["name", "value"], with_json)
}

fn set_vhost_limits(context: &Context, arguments: &[String]) -> Done {
    let definition = argument(arguments, 0);
    let vhost = &context.options.vhost;
    context.say(format_args!(
        "Setting vhost limits to \"{definition}\" for vhost \"{vhost}\" ..."
    ));
    users::set_limits(
        context,
        &format!("vhost-limits/{}", context.vhost()),
        definition,
    )
}

fn clear_vhost_limits(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    context.say(format_args!("Clearing vhost \"{vhost}\" limits ..."));
    for limit in ["max-connections", "max-queues"] {
        context.delete(&format!("vhost-limits/{}/{limit}", context.vhost()))?;
    }
    Ok(())
}

fn list_vhost_limits(context: &Context, _: &[String]) -> Done {
    let vhost = &context.options.vhost;
    if context.options.global {
        context.say("Listing limits for all vhosts ...");
        return lists::print(context, "vhost-limits", &["vhost", "limits"], |row| {
            let value = row.get("value").map(Value::to_string).unwrap_or_default();
            row.insert("limits".to_owned(), value.into());
        });
    }
    context.say(format_args!("Listing limits for vhost \"{vhost}\" ..."));
    let limits = context.get(&format!("vhost-limits/{}", context.vhost()))?;
    let value = limits.get(0).and_then(|entry| entry.get("value")).cloned();
    out!("{}", value.unwrap_or_else(|| json!({})));
    Ok(())
}

fn set_cluster_name(context: &Context, arguments: &[String]) -> Done {
    let name = argument(arguments, 0);
    context.say(format_args!("Setting cluster name to {name} ..."));
    context.put("cluster-name", &json!({ "name": name }))?;
    Ok(())
}
