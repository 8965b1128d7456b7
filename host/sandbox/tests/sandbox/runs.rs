//! Runs of well-behaved guests.

use std::sync::atomic::Ordering;

use maxhost_model::ErrorKind;
use maxhost_sandbox::{GuestLogLevel, Outcome, RunParameters};
use tokio::time::timeout;

use crate::support::{DEADLINE, component, host, invocation, parameters, returned, run, run_with, until};

#[tokio::test]
async fn arguments_go_in_and_the_result_comes_out() {
    let (end, _) = run("echo", b"some bytes").await;
    assert!(end.memory_peak >= 1 << 16, "{}", end.memory_peak);
    assert_eq!(returned(end), b"some bytes");
}

#[tokio::test]
async fn a_failure_arrives_with_all_its_fields() {
    let (end, _) = run("fail", b"").await;
    let Outcome::Failed(failure) = end.outcome else { panic!("{:?}", end.outcome) };
    assert_eq!(failure.kind, ErrorKind::FlowException);
    assert_eq!(failure.message, "refused");
    assert_eq!(failure.exception.as_deref(), Some("test/refused"));
    assert_eq!(failure.data.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(failure.error_id.map(|id| id.0), Some(u64::MAX));
    assert_eq!(failure.peer.as_deref(), Some("O=Bob, L=New York, C=US"));
    assert_eq!(failure.limit.as_deref(), Some("sessions"));
}

#[tokio::test]
async fn the_host_tells_the_guest_who_it_is() {
    let (end, _) = run("identity", b"").await;
    assert_eq!(returned(end), b"O=Alice, L=London, C=GB [1, 2] flow-1");
}

#[tokio::test]
async fn a_wait_suspends_the_guest_until_the_host_answers() {
    let (host, control) = host();
    let flow = tokio::spawn(async move { component().run(host, invocation("talk", b""), &parameters()).await });
    for message in [&b"a"[..], b"b", b"c"] {
        until("the guest waits", || control.waiting.load(Ordering::SeqCst) == 1).await;
        assert!(!flow.is_finished());
        control.peer.send(Some(message.to_vec())).unwrap();
    }
    control.peer.send(None).unwrap();
    let end = timeout(DEADLINE, flow).await.unwrap().unwrap();
    assert_eq!(returned(end), b"abc");
    let seen = control.seen.lock().unwrap();
    assert_eq!((seen.sent.as_slice(), seen.closed.as_slice()), (&[b"hello".to_vec()][..], &[5][..]));
}

#[tokio::test]
async fn a_failed_call_is_the_guests_to_handle() {
    let (host, control) = host();
    control.peer.send(None).unwrap();
    let end = component().run(host, invocation("talk", b""), &parameters()).await;
    let Outcome::Failed(failure) = end.outcome else { panic!("{:?}", end.outcome) };
    assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::UnexpectedEnd, "the peer is gone"));
}

#[tokio::test]
async fn a_stopped_call_ends_the_run_and_the_host_comes_back() {
    let (host, control) = host();
    let flow = tokio::spawn(async move { component().run(host, invocation("talk", b""), &parameters()).await });
    until("the guest waits", || control.waiting.load(Ordering::SeqCst) == 1).await;
    drop(control.peer);
    let end = timeout(DEADLINE, flow).await.unwrap().unwrap();
    assert_eq!(end.outcome, Outcome::Stopped);
    assert_eq!(end.host.seen.lock().unwrap().sent.len(), 1);
}

#[tokio::test]
async fn dropping_a_waiting_run_frees_everything() {
    let (host, control) = host();
    let flow = tokio::spawn(async move { component().run(host, invocation("talk", b""), &parameters()).await });
    until("the guest waits", || control.waiting.load(Ordering::SeqCst) == 1).await;
    flow.abort();
    // The host is dropped with the instance: its end of this channel goes.
    assert!(timeout(DEADLINE, control.gone).await.unwrap().is_err());
}

#[tokio::test]
async fn runs_beyond_the_slots_wait_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = crate::support::options(folder.path());
    options.max_instances = 2;
    let sandbox = maxhost_sandbox::Sandbox::new(options).unwrap();
    assert_eq!(sandbox.slots(), 2);
    let component = sandbox.load(crate::support::guest()).unwrap();
    let mut flows = Vec::new();
    for _ in 0..5 {
        let (host, control) = host();
        let component = component.clone();
        let flow = tokio::spawn(async move { component.run(host, invocation("statics", b"x"), &parameters()).await });
        flows.push((flow, control));
    }
    until("two wait in a call", || {
        flows.iter().filter(|(_, control)| control.waiting.load(Ordering::SeqCst) == 1).count() == 2
    })
    .await;
    // With all slots taken a component can still be loaded: `describe` has one of its own.
    let other = maxhost_sandbox::inspect(crate::support::guest()).unwrap();
    assert_eq!(other.descriptor, component.descriptor);
    for (flow, control) in flows {
        control.peer.send(Some(Vec::new())).unwrap();
        assert_eq!(returned(timeout(DEADLINE, flow).await.unwrap().unwrap()), b"1 1");
    }
}

#[tokio::test]
async fn nothing_static_is_shared_between_runs() {
    let mut flows = Vec::new();
    for times in 1..=20 {
        let (host, control) = host();
        for _ in 0..times {
            control.peer.send(Some(Vec::new())).unwrap();
        }
        let arguments = vec![0; times];
        flows.push((
            times,
            tokio::spawn(async move { component().run(host, invocation("statics", &arguments), &parameters()).await }),
        ));
    }
    for (times, flow) in flows {
        let end = timeout(DEADLINE, flow).await.unwrap().unwrap();
        assert_eq!(returned(end), format!("{times} {times}").into_bytes());
    }
}

#[tokio::test]
async fn the_seed_decides_the_order_of_hash_maps() {
    let order = async |seed: u8| {
        let parameters = RunParameters { seed: [seed; 32], ..parameters() };
        returned(run_with("hash-order", b"", &parameters).await.0)
    };
    let first = order(1).await;
    assert_eq!(order(1).await, first);
    assert_ne!(order(2).await, first);
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..32).collect::<Vec<u8>>());
}

#[tokio::test]
async fn clocks_and_randomness_are_the_hosts() {
    let (end, _) = run("clocks", b"").await;
    let text = String::from_utf8(returned(end)).unwrap();
    // The test's clock moves by one with every look at it.
    assert_eq!(text, "1700000000123456790 1700000000123456792 2");
    let (end, _) = run("random", b"").await;
    assert_eq!(returned(end), (0..16).collect::<Vec<u8>>());
}

#[tokio::test]
async fn not_a_number_has_the_same_bits_everywhere() {
    let (end, _) = run("nan", b"").await;
    assert_eq!(returned(end), 0x7ff8_0000_0000_0000_u64.to_le_bytes());
}

#[tokio::test]
async fn there_is_no_world_outside() {
    let (end, _) = run("environment", b"").await;
    // Opening a file ends the run or is an error of the guest's own; it never works.
    match end.outcome {
        Outcome::Returned(text) => {
            assert_eq!(text, b"stdin=0 no-thread=true no-file=true no-dir=true vars=0");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_asks_for_files_and_sockets_is_told_that_there_are_none() {
    let (end, _) = run("outside", b"").await;
    let text = String::from_utf8(returned(end)).unwrap();
    let refused = "Err(ErrorCode { code: 1, name: \"access-denied\", message: ";
    assert_eq!(text.matches(refused).count(), 2, "{text}");
    assert!(text.contains("permanent-resolver-failure"), "{text}");
    assert!(text.ends_with("folders=0 terminal=false Err(StreamError::Closed)"), "{text}");
}

#[tokio::test]
async fn log_lines_and_output_arrive_with_their_level() {
    let (end, control) = run("log", b"").await;
    returned(end);
    assert_eq!(control.seen.lock().unwrap().log, [(GuestLogLevel::Warn, "careful".to_owned())]);
    assert_eq!(control.seen.lock().unwrap().progress, ["half way"]);

    let (end, control) = run("print", b"").await;
    returned(end);
    let line = |level, text: &str| (level, text.to_owned());
    assert_eq!(
        control.seen.lock().unwrap().log,
        [
            line(GuestLogLevel::Info, "one"),
            line(GuestLogLevel::Error, "three"),
            line(GuestLogLevel::Info, "two and a half"),
            line(GuestLogLevel::Info, "left over"),
        ]
    );
}

#[tokio::test]
async fn sleeping_by_the_clock_is_a_sleep_of_the_flow() {
    let (end, control) = run("sleep-by-clock", b"").await;
    assert_eq!(end.outcome, Outcome::Returned(Vec::new()));
    // An hour: no sleep of a flow is longer than five minutes.
    let slept = control.seen.lock().unwrap().slept.clone();
    assert_eq!(slept.iter().sum::<u64>(), 3_600_000, "{slept:?}");
    assert!(slept.iter().all(|&milliseconds| milliseconds <= 300_000), "{slept:?}");
}

#[tokio::test]
async fn polling_clocks_is_a_sleep_until_the_first_of_them() {
    let (end, control) = run("poll-clocks", b"").await;
    let text = String::from_utf8(returned(end)).unwrap();
    assert_eq!(text, "[1] [1, 3] [true, true, false]");
    // The test's clock moves by a nanosecond with every look at it: the last sleep of a wait is rounded up.
    let slept = control.seen.lock().unwrap().slept.iter().sum::<u64>();
    assert!((700_000..700_010).contains(&slept), "{slept}");
}
