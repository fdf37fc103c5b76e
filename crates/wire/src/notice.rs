use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use crate::topic::Topic;
use crate::{Id, meta_key};

/// A notification that many sessions may receive.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A topic changed.
    Changed(Topic),
    /// A topic changed, and this is its state now.
    State {
        /// The topic. An extension owns it.
        topic: Topic,
        /// Grows with each change of the topic.
        version: u64,
        /// The whole current state, as the JSON of an object. It contains the key.
        state: Bytes,
    },
    /// The application's own notification.
    Custom {
        /// Its method.
        method: Arc<str>,
        /// Its parameters, an object, if there are any.
        params: Option<Value>,
    },
}

/// The id of the `subscriptions/listen` request that opened a stream of notices, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(Bytes);

impl SubscriptionId {
    /// The subscription that a request opens.
    #[must_use]
    pub fn of(request: &Id) -> Self {
        Self(request.to_json().into())
    }

    /// The id as JSON.
    #[must_use]
    pub fn as_json(&self) -> &[u8] {
        &self.0
    }
}

/// A notice, encoded once for any number of sessions.
///
/// The eras differ only in the subscription id, which is inserted while writing.
#[derive(Clone, Debug)]
pub struct EncodedNotice {
    notice: Notice,
    /// The message up to where the subscription goes.
    open: Bytes,
    end: End,
}

/// How the message goes on.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Without `params`.
    Message,
    /// In `params`, before any member.
    Bare,
    /// In `params`, after a member.
    Params,
    /// In the `_meta` of `params`, at its beginning or after a member.
    Meta { empty: bool },
}

impl EncodedNotice {
    /// Encodes a notice.
    #[must_use]
    pub fn new(notice: Notice) -> Self {
        // An application's own `_meta`, into which the subscription goes.
        let mut meta = None;
        let (method, members) = match &notice {
            Notice::Changed(topic) => {
                let key = topic.keyed().map(|(kind, key)| {
                    format!("\"{}\":{}", kind.rules().param, Value::from(&**key))
                });
                (topic.method(), key.unwrap_or_default())
            }
            Notice::State { topic, state, .. } => {
                let members = state.get(1..state.len().saturating_sub(1)).unwrap_or_default();
                (topic.method(), String::from_utf8_lossy(members).into_owned())
            }
            Notice::Custom { method, params } => {
                let mut map = params.as_ref().and_then(Value::as_object).cloned();
                let map = map.get_or_insert_default();
                meta = match map.shift_remove("_meta") {
                    Some(Value::Object(own)) => Some(members_of(&own)),
                    _ => None,
                };
                (&**method, members_of(map))
            }
        };
        let method = Value::from(method);
        let begin = format!(r#"{{"jsonrpc":"2.0","method":{method}"#);
        let comma = if members.is_empty() { "" } else { "," };
        let (open, end) = match meta {
            Some(own) => (
                format!(r#"{begin},"params":{{{members}{comma}"_meta":{{{own}"#),
                End::Meta { empty: own.is_empty() },
            ),
            None if members.is_empty() => (begin, End::Message),
            None => (format!(r#"{begin},"params":{{{members}"#), End::Params),
        };
        let notice = match notice {
            // The message contains these parts already, and they can be large.
            Notice::Custom { method, .. } => Notice::Custom { method, params: None },
            Notice::State { topic, version, .. } => {
                Notice::State { topic, version, state: Bytes::new() }
            }
            other => other,
        };
        Self { notice, open: open.into(), end }
    }

    /// Encodes a notification whose `params` have these members: JSON without the braces around it,
    /// and without `_meta`.
    #[must_use]
    pub fn of_members(method: Arc<str>, members: &str) -> Self {
        let name = Value::from(&*method);
        let open = format!(r#"{{"jsonrpc":"2.0","method":{name},"params":{{{members}"#);
        let end = if members.is_empty() { End::Bare } else { End::Params };
        Self { notice: Notice::Custom { method, params: None }, open: open.into(), end }
    }

    /// The notice, without the parts that only the message contains.
    #[must_use]
    pub fn notice(&self) -> &Notice {
        &self.notice
    }

    /// How many bytes [`write`](Self::write) appends at most.
    #[must_use]
    pub fn len_hint(&self, subscription: Option<&SubscriptionId>) -> usize {
        self.open.len() + 4 + subscription.map_or(0, |id| id.0.len() + SPLICE_LEN)
    }

    /// Appends the message, with its subscription in the modern era.
    pub fn write(&self, out: &mut BytesMut, subscription: Option<&SubscriptionId>) {
        out.put_slice(&self.open);
        let Some(id) = subscription else {
            return out.put_slice(match self.end {
                End::Message => b"}",
                End::Bare | End::Params => b"}}",
                End::Meta { .. } => b"}}}",
            });
        };
        out.put_slice(match self.end {
            End::Message => b",\"params\":{\"_meta\":{\"",
            End::Bare => b"\"_meta\":{\"",
            End::Params => b",\"_meta\":{\"",
            End::Meta { empty: true } => b"\"",
            End::Meta { empty: false } => b",\"",
        });
        out.put_slice(meta_key::SUBSCRIPTION_ID.as_bytes());
        out.put_slice(b"\":");
        out.put_slice(&id.0);
        out.put_slice(b"}}}");
    }
}

/// The members of an object as JSON, without the braces around them.
fn members_of(object: &serde_json::Map<String, Value>) -> String {
    let json = serde_json::to_string(object).unwrap_or_else(|_| "{}".to_owned());
    json[1..json.len() - 1].to_owned()
}

const SPLICE_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ListKind;

    fn written(notice: Notice, id: Option<Id>) -> Value {
        let encoded = EncodedNotice::new(notice);
        let id = id.as_ref().map(SubscriptionId::of);
        let mut out = BytesMut::new();
        encoded.write(&mut out, id.as_ref());
        assert!(out.len() <= encoded.len_hint(id.as_ref()));
        serde_json::from_slice(&out).expect("a notice is JSON")
    }

    #[test]
    fn a_list_change_has_params_only_for_a_subscription() {
        let notice = Notice::Changed(Topic::List(ListKind::Tools));
        assert_eq!(
            written(notice.clone(), None),
            serde_json::json!({"jsonrpc":"2.0","method":"notifications/tools/list_changed"})
        );
        assert_eq!(
            written(notice, Some(Id::Number(4)))["params"],
            serde_json::json!({"_meta":{meta_key::SUBSCRIPTION_ID:4}})
        );
    }

    proptest! {
        #[test]
        fn splicing_equals_encoding_anew(uri in ".*", id in ".*", n in any::<i64>()) {
            for id in [Id::Text(id.as_str().into()), Id::Number(n)] {
                let expected = serde_json::json!({
                    "jsonrpc": "2.0",
                    "method": "notifications/resources/updated",
                    "params": {"uri": uri, "_meta": {meta_key::SUBSCRIPTION_ID: id}},
                });
                let notice = Notice::Changed(Topic::Resource(uri.as_str().into()));
                prop_assert_eq!(written(notice, Some(id)), expected);
            }
        }

        #[test]
        fn a_custom_notice_keeps_its_params(key in ".*", value in ".*") {
            let params = serde_json::json!({ key: value });
            let notice = Notice::Custom { method: "notifications/x".into(), params: Some(params.clone()) };
            prop_assert_eq!(&written(notice, None)["params"], &params);
        }

        #[test]
        fn a_subscription_goes_into_the_meta_of_a_custom_notice(
            own in proptest::option::of(any::<bool>()),
            more in any::<bool>(),
        ) {
            let mut params = serde_json::json!({});
            if more {
                params["n"] = 1.into();
            }
            match own {
                Some(true) => params["_meta"] = serde_json::json!({"a": 1}),
                Some(false) => params["_meta"] = serde_json::json!({}),
                None => {}
            }
            let notice = Notice::Custom { method: "n/x".into(), params: Some(params.clone()) };
            let mut expected = params.clone();
            expected["_meta"][meta_key::SUBSCRIPTION_ID] = 7.into();
            prop_assert_eq!(&written(notice.clone(), Some(Id::Number(7)))["params"], &expected);
            let alone = written(notice, None);
            let nothing = serde_json::json!({});
            prop_assert_eq!(alone.get("params").unwrap_or(&nothing), &params);
        }
    }
}
