//! Results of flows: no larger than a message, and never a tree of values in the host.

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, Network, peak};
use serde_json::json;

/// The network's largest message, bytes.
const LARGEST: usize = 10 << 20;
/// What lies before the elements of a list of more than 65,535, in CBOR.
const HEAD: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_no_larger_than_a_message_and_is_given_as_text() {
    let network = Network::new().setting("flows.shadow_replay=0");
    let host = network.run();
    let failure = host.run(ALICE, "return-large", json!({"amount": LARGEST - HEAD + 1})).await.failure();
    assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), ("limit", Some("message")));
    assert!(failure.message.contains("the result has 10485761 bytes"), "{failure:?}");

    let flow = host.start(ALICE, "return-large", json!({"amount": LARGEST - HEAD})).await;
    host.until_state(&flow, "completed").await;
    host.until_quiet().await;
    let _peak_of_the_flow = peak(host.pid());
    let before = peak(host.pid());
    let selector = Some(pb::get_flow_request::Selector::FlowId(flow));
    let request = pb::GetFlowRequest { selector, encoding: pb::Encoding::Json.into() };
    let end = host.client().get_flow(request).await.unwrap().flow.unwrap().end;
    let Some(pb::flow::End::Result(pb::Payload { encoding: Some(pb::payload::Encoding::Json(json)) })) = end else {
        panic!("the result is not there as JSON")
    };
    // A digit and a comma for each, and the brackets.
    assert_eq!(json.len(), 2 * (LARGEST - HEAD) + 1);
    assert!(json.starts_with("[0,0,") && json.ends_with(",0]"));
    let grown = peak(host.pid()).saturating_sub(before);
    eprintln!("a result of {LARGEST} bytes was given as JSON: the host grew by {grown} bytes");
    // A tree of values takes 32 bytes for each of the elements.
    assert!(grown < 25 * LARGEST as u64, "{grown} bytes");
}
