//! Round trips, split input, and refusals of the peer messages.
#![allow(clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn any_block() -> impl Strategy<Value = RawBlock> {
    any::<(u32, u32, u32)>().prop_map(|(piece, offset_bytes, len_bytes)| RawBlock {
        piece,
        offset_bytes,
        len_bytes,
    })
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let slot = || any::<u16>().prop_map(Slot);
    let payload = || any::<[u8; 32]>().prop_map(PayloadId::from_bytes);
    let reason = || proptest::sample::select(Reason::ALL.to_vec());
    let bytes = |max| proptest::collection::vec(any::<u8>(), 1..max).prop_map(Bytes::from);
    let pieces = |max| proptest::collection::vec(any::<u32>(), 1..max);
    prop_oneof![
        (
            any::<bool>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
            any::<u16>(),
            1_u16..=64,
            proptest::option::of("[a-zA-Z0-9._-]{1,32}")
        )
            .prop_map(
                |(takes_tls, node, nonce, listen_port, requests_max, zone)| Message::Hello(Hello {
                    takes_tls,
                    node: NodeId(node),
                    nonce,
                    listen_port,
                    requests_max,
                    zone: zone.map(|zone| zone.parse().expect("a zone"))
                })
            ),
        (slot(), payload(), any::<[u8; 32]>()).prop_map(|(slot, payload, proof)| Message::Join {
            slot,
            payload,
            proof
        }),
        (payload(), reason()).prop_map(|(payload, reason)| Message::Refuse { payload, reason }),
        (slot(), reason()).prop_map(|(slot, reason)| Message::Leave { slot, reason }),
        (slot(), any::<bool>(), any::<bool>(), bytes(200)).prop_map(
            |(slot, giving, choked, bits)| Message::Bitfield {
                slot,
                giving,
                choked,
                bits
            }
        ),
        slot().prop_map(|slot| Message::HaveAll { slot }),
        (slot(), pieces(HAVE_PIECES_MAX)).prop_map(|(slot, pieces)| Message::Have { slot, pieces }),
        (slot(), pieces(OFFER_PIECES_MAX))
            .prop_map(|(slot, pieces)| Message::Offer { slot, pieces }),
        slot().prop_map(|slot| Message::Choke { slot }),
        slot().prop_map(|slot| Message::Unchoke { slot }),
        (slot(), any_block()).prop_map(|(slot, block)| Message::Request { slot, block }),
        (slot(), any_block()).prop_map(|(slot, block)| Message::Cancel { slot, block }),
        (slot(), any_block()).prop_map(|(slot, block)| Message::Reject { slot, block }),
        (slot(), any::<(u32, u32)>(), bytes(2_000)).prop_map(
            |(slot, (piece, offset_bytes), bytes)| Message::Block {
                slot,
                piece,
                offset_bytes,
                bytes
            }
        ),
        (
            slot(),
            proptest::collection::vec(any_address(), 1..=PEERS_ADDRESSES_MAX)
        )
            .prop_map(|(slot, addresses)| Message::Peers { slot, addresses }),
        Just(Message::Ping),
    ]
}

proptest! {
    /// Messages come out as they went in, however the stream is cut.
    // req: PEER-5
    #[test]
    fn messages_round_trip_for_any_chunking(
        messages in proptest::collection::vec(any_message(), 1..6),
        cut_bytes in 1_usize..700,
    ) {
        let mut stream = BytesMut::new();
        for message in &messages {
            encode(message, &mut stream);
        }
        let mut input = BytesMut::new();
        let mut decoded = Vec::new();
        for cut in stream.chunks(cut_bytes) {
            input.extend_from_slice(cut);
            while let Some(message) = decode(&mut input)? {
                decoded.push(message);
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(decoded, messages);
    }

    /// No bytes make the decoder panic, and what it takes encodes to the same bytes again.
    // req: PEER-5
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0_u8..18) {
        let mut framed = BytesMut::new();
        framed.put_u32(bytes.len() as u32 + 1);
        framed.put_u8(kind);
        framed.put_slice(&bytes);
        let whole = framed.clone();
        if let Ok(Some(message)) = decode(&mut framed) {
            let mut again = BytesMut::new();
            encode(&message, &mut again);
            prop_assert_eq!(again, whole);
        }
        let _ = decode_block_header(&mut BytesMut::from(bytes.as_slice()));
    }
}

/// A length beyond its type's bound is refused from the first five bytes.
// req: PEER-1
#[test]
fn oversize_and_empty_lengths_are_refused_before_the_content_came() {
    for kind in 0_u8..=15 {
        let max = content_bytes_max(kind).expect("a known type");
        for length in [0, max as u32 + 2, u32::MAX] {
            let mut input = BytesMut::new();
            input.put_u32(length);
            input.put_u8(kind);
            let refused = decode(&mut input);
            assert!(
                matches!(refused, Err(WireError::Length { .. })),
                "{kind} {length}"
            );
        }
        assert!(HEADER_BYTES + max <= crate::swarm::limits::MESSAGE_BYTES_MAX);
    }
    let mut unknown = BytesMut::from(&[0, 0, 0, 1, 16][..]);
    assert_eq!(decode(&mut unknown), Err(WireError::Kind { kind: 16 }));
}

/// A zone is a short label; anything else behind the fixed part is refused.
// req: PEER-15
#[test]
fn zones_are_labels() {
    let hello = |zone: &[u8]| {
        let mut bytes = BytesMut::new();
        encode(
            &Message::Hello(Hello {
                takes_tls: false,
                node: NodeId([1; 32]),
                nonce: [2; 32],
                listen_port: 5690,
                requests_max: 16,
                zone: None,
            }),
            &mut bytes,
        );
        bytes.extend_from_slice(zone);
        let length = u32::try_from(bytes.len() - 4).expect("short").to_be_bytes();
        bytes[..4].copy_from_slice(&length);
        decode(&mut bytes)
    };
    let zone = |read: Result<Option<Message>, WireError>| match read {
        Ok(Some(Message::Hello(hello))) => hello.zone.map(|zone| zone.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(zone(hello(b"")), None);
    assert_eq!(zone(hello(b"rack-7.b_1")).as_deref(), Some("rack-7.b_1"));
    assert_eq!(
        zone(hello(&[b'z'; 32])).as_deref(),
        Some("z".repeat(32).as_str())
    );
    for bad in [&b"a b"[..], b"\n", &[0xff], &[b'z'; 33], b"a,b"] {
        assert!(hello(bad).is_err(), "{bad:?}");
    }
}

/// Another magic or version is no Hello.
// req: PEER-2
#[test]
fn hello_of_another_protocol_is_refused() {
    let hello = Message::Hello(Hello {
        takes_tls: true,
        node: NodeId([1; 32]),
        nonce: [2; 32],
        listen_port: 5690,
        requests_max: 16,
        zone: None,
    });
    let mut good = BytesMut::new();
    encode(&hello, &mut good);
    assert_eq!(good.len(), HEADER_BYTES + 80);
    for (position, value) in [(5, b'W'), (14, 2), (15, 1), (16, 2), (84, 0), (84, 65)] {
        let mut bad = good.clone();
        bad[position] = value;
        assert!(
            matches!(decode(&mut bad), Err(WireError::Value { .. })),
            "{position}"
        );
    }
    assert_eq!(decode(&mut good), Ok(Some(hello)));
}

/// The head of a block read alone agrees with the whole message.
#[test]
fn block_header_alone_agrees_with_the_message() {
    let header = BlockHeader {
        slot: Slot(3),
        piece: 70_000,
        offset_bytes: 262_144,
        len_bytes: 3,
    };
    let mut stream = BytesMut::from(&encode_block_header(header)[..]);
    stream.put_slice(b"abc");
    assert_eq!(decode_block_header(&mut stream.clone()), Ok(Some(header)));
    let expected = Message::Block {
        slot: Slot(3),
        piece: 70_000,
        offset_bytes: 262_144,
        bytes: Bytes::from_static(b"abc"),
    };
    assert_eq!(decode(&mut stream), Ok(Some(expected)));
}
