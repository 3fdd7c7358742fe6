//! `/overview`: the broker at a glance.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::rates::Statistics;
use super::{Answer, Level, Reply, Route, node_counters, nodes, paging, parameters, slow_route};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub(super) const ROUTES: &[Route] = &[
    slow_route(Method::GET, "/overview", Level::Management, overview),
    super::route(Method::GET, "/extensions", Level::Management, extensions),
    super::route(Method::GET, "/version", Level::Management, version),
];

/// What clients are told that look for RabbitMQ's own version: the one whose behaviour is kept.
pub(in crate::admin) const RABBITMQ_VERSION: &str = "3.10.8";

fn overview(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let seen = super::connections::visible(call).await;
        let channels: usize = seen.iter().map(|(_, view)| view.channels.len()).sum();
        let consumers: usize = seen
            .iter()
            .flat_map(|(_, view)| &view.channels)
            .map(|channel| channel.consumers.len())
            .sum();
        let vhosts = call.visible_vhosts();
        let queues: usize = vhosts.iter().map(|vhost| vhost.queues().len()).sum();
        let exchanges: usize = vhosts.iter().map(|vhost| vhost.exchanges().len()).sum();
        let facts = &call.api.facts;
        let mut statistics = call.api.rates.total(call.broker());
        // As RabbitMQ: samples come to who names an age for them. There is one age and one step here.
        let ages = ["lengths_age", "msg_rates_age"];
        if ages.iter().any(|age| call.query.contains_key(*age)) {
            statistics = statistics.with_history(&call.api.rates);
        }
        let mut totals = Map::new();
        statistics.put_depth(&mut totals);
        let mut object = json!({
            "management_version": RABBITMQ_VERSION,
            "rates_mode": "basic",
            "sample_retention_policies": {
                "global": [600, 3600, 28800, 86400], "basic": [600, 3600], "detailed": [600],
            },
            "exchange_types": nodes::exchange_types(),
            "product_name": facts.product,
            "product_version": facts.version,
            "rabbitmq_version": RABBITMQ_VERSION,
            "cluster_name": parameters::cluster_name_of(call),
            "erlang_version": "n/a (Warren)",
            "erlang_full_version": "n/a (Warren)",
            "release_series_support_status": "supported",
            "disable_stats": false,
            "enable_queue_totals": false,
            "message_stats": message_stats(call, &statistics),
            "churn_rates": churn(call),
            "queue_totals": totals,
            "object_totals": {
                "channels": channels,
                "connections": seen.len(),
                "consumers": consumers,
                "exchanges": exchanges,
                "queues": queues,
            },
            "statistics_db_event_queue": 0,
            "node": facts.node,
            // req: MGMT-11
            "sync": facts.sync.name(),
        });
        if call.may(Level::Monitoring)
            && let Value::Object(object) = &mut object
        {
            object.insert("listeners".to_owned(), nodes::listeners(call));
            object.insert("contexts".to_owned(), nodes::contexts(call));
        }
        paging::one(call, object)
    }
    .boxed()
}

/// What happened in queues, and what publishers were told.
fn message_stats(call: &Call, statistics: &Statistics) -> Value {
    let published = call.broker().statistics().published();
    let mut all = statistics.message_stats();
    for (name, count) in node_counters::told(&published) {
        all.insert(name.to_owned(), count.into());
        let rate = call.api.rates.node(name);
        all.insert(format!("{name}_details"), json!({ "rate": rate }));
    }
    Value::Object(all)
}

fn churn(call: &Call) -> Value {
    let (opened, closed) = call.api.registry.churn();
    let churn = call.broker().statistics().churn();
    let mut object = Map::new();
    for (name, count) in [
        ("connection_created", opened),
        ("connection_closed", closed),
        ("channel_created", churn.channels_opened),
        ("channel_closed", churn.channels_closed),
        ("queue_created", churn.queues_created),
        ("queue_declared", churn.queues_declared),
        ("queue_deleted", churn.queues_deleted),
    ] {
        object.insert(name.to_owned(), count.into());
        let rate = call.api.rates.node(name);
        object.insert(format!("{name}_details"), json!({ "rate": rate }));
    }
    Value::Object(object)
}

fn extensions(_: &Call) -> Answer {
    Ok(Reply::Json(json!([{ "javascript": "dispatcher.js" }])))
}

fn version(call: &Call) -> Answer {
    Ok(Reply::Json(Value::from(call.api.facts.version.as_str())))
}
