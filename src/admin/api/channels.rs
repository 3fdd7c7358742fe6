//! `/channels` and `/consumers`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::broker::{AckMode, Activity, ConsumerState, Name};
use crate::session::ChannelView;

use super::call::Call;
use super::connections::{Seen, visible};
use super::error::ApiError;
use super::{Answer, Level, Route, json as convert, paging, queues, slow_route};

pub(super) const ROUTES: &[Route] = &[
    slow_route(Method::GET, "/channels", Level::Management, list),
    slow_route(Method::GET, "/channels/{name}", Level::Management, get),
    slow_route(
        Method::GET,
        "/vhosts/{vhost}/channels",
        Level::Management,
        list_of_vhost,
    ),
    slow_route(Method::GET, "/consumers", Level::Management, list_consumers),
    slow_route(
        Method::GET,
        "/consumers/{vhost}",
        Level::Management,
        list_consumers,
    ),
];

fn name_of(seen: &Seen, channel: &ChannelView) -> String {
    format!("{} ({})", seen.0.name(), channel.number)
}

fn describe(call: &Call, seen: &Seen, channel: &ChannelView) -> Value {
    let (entry, view) = seen;
    let text = |name: &Option<Name>| name.as_ref().map(Name::to_string);
    json!({
        "name": name_of(seen, channel),
        "number": channel.number,
        "node": call.api.facts.node,
        "state": "running",
        "user": text(&view.user),
        "user_who_performed_action": text(&view.user),
        "vhost": text(&view.vhost),
        "confirm": channel.confirm,
        "transactional": channel.transactional,
        "prefetch_count": channel.prefetch_count_max,
        "global_prefetch_count": channel.global_prefetch_count_max,
        "consumer_count": channel.consumers.len(),
        "messages_unacknowledged": channel.unsettled_count,
        "messages_unconfirmed": channel.unconfirmed_count,
        "messages_uncommitted": channel.uncommitted_count,
        "acks_uncommitted": channel.uncommitted_ack_count,
        "pending_raft_commands": 0,
        "reductions": 0,
        "reductions_details": { "rate": 0.0 },
        "garbage_collection": queues::no_garbage(),
        "message_stats": call.api.rates.clients(|looks| looks.channel(entry, channel)),
        "connection_details": {
            "name": entry.name(),
            "peer_host": entry.peer().ip().to_string(),
            "peer_port": entry.peer().port(),
        },
    })
}

/// The channels of one connection.
pub(super) fn of_connection(call: &Call, seen: &Seen) -> Vec<Value> {
    call.api.rates.watch();
    let channels = seen.1.channels.iter();
    channels
        .map(|channel| describe(call, seen, channel))
        .collect()
}

async fn listed(call: &Call, is_meant: impl Fn(&Seen) -> bool) -> Answer {
    let seen = visible(call).await;
    let meant = seen.iter().filter(|seen| is_meant(seen));
    paging::list(
        call,
        meant.flat_map(|seen| of_connection(call, seen)).collect(),
    )
}

fn list(call: &Call) -> BoxFuture<'_, Answer> {
    listed(call, |_| true).boxed()
}

fn list_of_vhost(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let vhost = call.vhost()?;
        listed(call, |(_, view)| view.vhost.as_ref() == Some(vhost.name())).await
    }
    .boxed()
}

fn get(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let all = visible(call).await;
        let found = all.iter().find_map(|seen| {
            let mut channels = seen.1.channels.iter();
            let channel = channels.find(|channel| name_of(seen, channel) == call.name("name"))?;
            Some((seen, channel))
        });
        let (seen, channel) = found.ok_or_else(ApiError::not_found)?;
        call.api.rates.watch();
        let mut object = describe(call, seen, channel);
        if let Value::Object(object) = &mut object {
            let consumers = channel.consumers.iter().filter_map(|held| {
                let states = held.queue().consumer_states();
                let state = states
                    .into_iter()
                    .find(|state| state.consumer.tag() == held.tag())?;
                Some(consumer(call, &state, Some((seen, channel))))
            });
            object.insert("consumer_details".to_owned(), consumers.collect());
            object.insert("deliveries".to_owned(), json!([]));
            object.insert("publishes".to_owned(), json!([]));
        }
        paging::one(call, object)
    }
    .boxed()
}

/// Whether a consumer is the one that its queue serves alone.
pub(super) fn is_single_active(state: &ConsumerState) -> bool {
    state.activity == Activity::SingleActive
}

/// A queue's consumers, each with its channel, as far as one of these connections has it.
pub(super) fn consumers_at(call: &Call, states: &[ConsumerState], seen: &[Seen]) -> Value {
    let mut places = HashMap::new();
    for seen in seen {
        for channel in &seen.1.channels {
            let held = channel.consumers.iter().map(Arc::as_ptr);
            places.extend(held.map(|held| (held, (seen, channel))));
        }
    }
    let described = states.iter().map(|state| {
        let of = places.get(&Arc::as_ptr(&state.consumer)).copied();
        consumer(call, state, of)
    });
    described.collect()
}

/// A consumer as its queue sees it, with its channel where that is known.
fn consumer(call: &Call, state: &ConsumerState, of: Option<(&Seen, &ChannelView)>) -> Value {
    let held = &state.consumer;
    let (activity, is_active) = match state.activity {
        Activity::SingleActive => ("single_active", true),
        Activity::Up => ("up", true),
        Activity::Waiting => ("waiting", false),
    };
    let channel = of.map_or_else(
        || json!({ "number": held.channel(), "node": call.api.facts.node }),
        |(seen, channel)| {
            json!({
                "name": name_of(seen, channel),
                "number": channel.number,
                "node": call.api.facts.node,
                "user": seen.1.user.as_ref().map(Name::to_string),
                "connection_name": seen.0.name(),
                "peer_host": seen.0.peer().ip().to_string(),
                "peer_port": seen.0.peer().port(),
            })
        },
    );
    json!({
        "consumer_tag": held.tag().to_string(),
        "ack_required": held.ack_mode() == AckMode::Manual,
        "active": is_active,
        "activity_status": activity,
        "exclusive": held.is_exclusive(),
        "prefetch_count": held.prefetch_count_max(),
        "arguments": convert::from_table(held.arguments()),
        "queue": {
            "name": held.queue().name().to_string(),
            "vhost": held.queue().vhost().to_string(),
        },
        "channel_details": channel,
    })
}

fn list_consumers(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let vhost = match call.names.contains_key("vhost") {
            true => Some(call.vhost()?),
            false => None,
        };
        let seen = visible(call).await;
        let in_vhost = |(_, view): &&Seen| {
            let vhost = vhost.as_ref();
            vhost.is_none_or(|vhost| view.vhost.as_ref() == Some(vhost.name()))
        };
        let consumers = consumers_of(call, seen.iter().filter(in_vhost));
        paging::list(call, consumers)
    }
    .boxed()
}

/// The consumers of these connections; each queue is asked once.
fn consumers_of<'a>(call: &Call, seen: impl Iterator<Item = &'a Seen>) -> Vec<Value> {
    let mut asked = HashSet::new();
    let mut states = HashMap::new();
    let mut consumers = Vec::new();
    for seen in seen {
        for channel in &seen.1.channels {
            for held in &channel.consumers {
                if asked.insert(held.queue().id()) {
                    let of_queue = held.queue().consumer_states().into_iter();
                    states.extend(of_queue.map(|state| (Arc::as_ptr(&state.consumer), state)));
                }
                if let Some(state) = states.get(&Arc::as_ptr(held)) {
                    consumers.push(consumer(call, state, Some((seen, channel))));
                }
            }
        }
    }
    consumers
}
