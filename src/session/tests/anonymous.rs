//! Logins without a password, where an operator wants them.

use super::*;

/// What a login by ANONYMOUS leads to with these settings.
fn log_in(anonymous_user: Option<&str>) -> (Vec<Method>, bool) {
    let now = Instant::now();
    let settings = BrokerSettings::new([7; 32], now, 0);
    let broker = Broker::open(settings, None, None).expect("nothing to recover");
    let mut settings = SessionSettings::default();
    settings.connection.anonymous_user = anonymous_user.map(str::to_owned);
    let session = Session::new(
        Arc::new(settings),
        Arc::clone(&broker),
        Origin::Loopback,
        Arc::new(NoWaker),
        now,
    );
    let mut driven = Driven {
        broker,
        session,
        input: BytesMut::new(),
        now,
    };
    driven.bytes(&ProtocolHeader::ANSWER);
    let mut methods = driven.methods();
    driven.method(
        0,
        connection::StartOk {
            mechanism: short("ANONYMOUS"),
            ..connection::StartOk::default()
        },
    );
    methods.extend(driven.methods());
    (methods, driven.session.is_closed())
}

/// The mechanism is offered, and logs in, only where a setting names the account.
// req: LOGIN-1
#[test]
fn anonymous_logs_in_where_it_is_set() {
    let (methods, is_closed) = log_in(Some("guest"));
    let [Method::ConnectionStart(start), Method::ConnectionTune(_)] = &methods[..] else {
        panic!("expected start and tune, got {methods:?}");
    };
    assert_eq!(&start.mechanisms[..], b"PLAIN AMQPLAIN ANONYMOUS");
    assert!(!is_closed);
    for refused in [None, Some("nobody")] {
        let (methods, is_closed) = log_in(refused);
        assert_eq!(methods.len(), 1, "{methods:?}");
        assert!(is_closed, "{refused:?}");
    }
}
