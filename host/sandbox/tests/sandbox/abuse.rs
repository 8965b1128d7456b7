//! Guests that misbehave: each ends alone, with the reason, and the host goes on.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use maxhost_sandbox::{Outcome, RunParameters, TrapKind};
use tokio::time::timeout;

use crate::support::{DEADLINE, component, host, invocation, parameters, returned, run, run_with, trap, until};

#[tokio::test]
async fn a_guest_that_spins_ends_and_its_neighbour_on_the_same_thread_keeps_its_pace() {
    // Compiled before, which takes long beside other tests that compile: what is looked at is how long runs take.
    drop(component());
    // This runtime has one thread: the neighbours run only because the spinner yields.
    let (spinner, _control) = host();
    let parameters = RunParameters { cpu: Duration::from_millis(400), ..parameters() };
    let spinner = tokio::spawn(async move { component().run(spinner, invocation("spin", b""), &parameters).await });
    let mut done = 0;
    while !spinner.is_finished() {
        let start = Instant::now();
        assert_eq!(returned(run("echo", b"x").await.0), b"x");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        done += 1;
        tokio::task::yield_now().await;
    }
    assert!(done > 20, "only {done} neighbours ran beside the spinner");
    let end = timeout(DEADLINE, spinner).await.unwrap().unwrap();
    assert!(end.computed > Duration::from_millis(400), "{:?}", end.computed);
    let trap = trap(end);
    assert_eq!((trap.kind, trap.kind.limit()), (TrapKind::Cpu, Some("cpu")));
}

#[tokio::test]
async fn computing_is_counted_from_wait_to_wait() {
    // Find what one round costs here, then allow a few rounds of it, and have it done many times.
    let once = async |rounds: usize, cpu| {
        let (host, control) = host();
        for _ in 0..rounds {
            control.peer.send(Some(Vec::new())).unwrap();
        }
        let parameters = RunParameters { cpu, ..parameters() };
        component().run(host, invocation("spin-after-wait", &vec![0; rounds]), &parameters).await
    };
    let single = once(1, Duration::from_secs(200)).await.computed;
    let end = once(30, single * 3 + Duration::from_millis(400)).await;
    assert!(matches!(end.outcome, Outcome::Returned(_)), "{:?}", end.outcome);
}

#[tokio::test]
async fn a_computing_guest_can_be_stopped() {
    let (host, control) = host();
    let parameters = RunParameters { cpu: Duration::MAX, ..parameters() };
    let flow = tokio::spawn(async move { component().run(host, invocation("spin", b""), &parameters).await });
    control.stop_on_tick.store(true, Ordering::SeqCst);
    let end = timeout(DEADLINE, flow).await.unwrap().unwrap();
    assert_eq!(end.outcome, Outcome::Stopped);
}

#[tokio::test]
async fn a_computing_guest_can_be_dropped() {
    let (host, control) = host();
    let parameters = RunParameters { cpu: Duration::MAX, ..parameters() };
    let flow = tokio::spawn(async move { component().run(host, invocation("spin", b""), &parameters).await });
    tokio::task::yield_now().await;
    flow.abort();
    assert!(timeout(DEADLINE, control.gone).await.unwrap().is_err());
}

#[tokio::test]
async fn memory_ends_at_the_limit_and_not_before() {
    let parameters = RunParameters { memory_limit: 8 << 20, ..parameters() };
    let (end, _) = run_with("grow", &[5], &parameters).await;
    assert!(end.memory_peak > 5 << 20 && end.memory_peak <= 8 << 20, "{}", end.memory_peak);
    returned(end);

    for (flow, arguments) in [("eat-memory", &[][..]), ("grow", &[9])] {
        let (end, _) = run_with(flow, arguments, &parameters).await;
        assert!(end.memory_peak <= 8 << 20, "{}", end.memory_peak);
        let trap = trap(end);
        assert_eq!((trap.kind, trap.kind.limit()), (TrapKind::Memory, Some("memory")), "{}", trap.message);
    }
}

#[tokio::test]
async fn the_sandbox_caps_what_a_run_asks_for() {
    let parameters = RunParameters { memory_limit: usize::MAX, cpu: Duration::from_secs(200), ..parameters() };
    let (end, _) = run_with("eat-memory", b"", &parameters).await;
    assert!(end.memory_peak <= 64 << 20, "{}", end.memory_peak);
    assert_eq!(trap(end).kind, TrapKind::Memory);
}

#[tokio::test]
async fn a_limit_below_what_the_guest_starts_with_is_a_memory_limit() {
    let parameters = RunParameters { memory_limit: 1 << 16, ..parameters() };
    let (end, _) = run_with("echo", b"", &parameters).await;
    assert_eq!(trap(end).kind, TrapKind::Memory);
}

#[tokio::test]
async fn endless_recursion_is_a_full_stack() {
    let (end, _) = run("recurse", b"").await;
    let trap = trap(end);
    assert_eq!((trap.kind, trap.kind.limit()), (TrapKind::Stack, Some("stack")), "{}", trap.message);
    assert!(trap.backtrace.unwrap().contains("recurse"));
}

#[tokio::test]
async fn a_panic_keeps_its_text_and_its_place() {
    let (end, control) = run("panic", b"").await;
    let trap = trap(end);
    assert_eq!(trap.kind, TrapKind::Panic);
    assert!(trap.message.starts_with("panicked at src/lib.rs:"), "{}", trap.message);
    assert!(trap.message.ends_with(": the sky is falling"), "{}", trap.message);
    assert!(trap.backtrace.is_some());
    let seen = control.seen.lock().unwrap();
    assert!(seen.log.iter().any(|(_, line)| line == "the sky is falling"), "{:?}", seen.log);
}

#[tokio::test]
async fn a_stray_pointer_is_a_fault_and_not_a_full_stack() {
    let (end, _) = run("stray", b"").await;
    let trap = trap(end);
    assert_eq!(trap.kind, TrapKind::Fault, "{}", trap.message);
}

#[tokio::test]
async fn a_flood_of_output_ends_at_the_hosts_limit() {
    let (end, control) = run("flood", b"").await;
    let trap = trap(end);
    assert_eq!((trap.kind, trap.kind.limit()), (TrapKind::Log, Some("log")));
    assert!(trap.message.contains("more lines than allowed"), "{}", trap.message);
    assert_eq!(control.seen.lock().unwrap().log.len(), 1000);
}

#[tokio::test]
async fn leaving_by_exit_is_told() {
    let (end, _) = run("exit", b"").await;
    let trap = trap(end);
    assert_eq!(trap.kind, TrapKind::Exit, "{}", trap.message);
}

#[tokio::test]
async fn handles_are_counted() {
    let (end, _) = run("hoard-handles", b"").await;
    let trap = trap(end);
    assert_eq!(trap.kind, TrapKind::Refused);
    assert!(trap.message.contains("handles"), "{}", trap.message);
}

#[tokio::test]
async fn output_that_the_host_would_make_for_the_guest_is_bounded() {
    returned(run("print-zeroes", &1024_u64.to_le_bytes()).await.0);
    for count in [(64 << 10) + 1, 1 << 40, u64::MAX] {
        let (end, control) = run("print-zeroes", &count.to_le_bytes()).await;
        let trap = trap(end);
        assert_eq!(trap.kind, TrapKind::Fault, "{count}: {}", trap.message);
        assert!(control.seen.lock().unwrap().log.is_empty());
    }
}

/// What one call writes is bounded also where nothing of it comes into the log.
#[tokio::test]
async fn output_of_one_call_is_bounded() {
    returned(run("print-empty-lines", &(64_u64 << 10).to_le_bytes()).await.0);
    let (end, _) = run("print-empty-lines", &((64_u64 << 10) + 1).to_le_bytes()).await;
    let trap = trap(end);
    assert_eq!(trap.kind, TrapKind::Refused, "{}", trap.message);
    assert!(trap.message.contains("65537 bytes"), "{}", trap.message);
}

#[tokio::test]
async fn the_host_is_well_after_all_of_them() {
    for flow in ["panic", "recurse", "eat-memory", "stray", "exit", "flood", "hoard-handles"] {
        for _ in 0..20 {
            let (end, _) = run(flow, b"").await;
            assert!(matches!(end.outcome, Outcome::Trapped(_)), "{flow}: {:?}", end.outcome);
        }
    }
    let (host, control) = host();
    let flow = tokio::spawn(async move { component().run(host, invocation("talk", b""), &parameters()).await });
    until("the guest waits", || control.waiting.load(Ordering::SeqCst) == 1).await;
    control.peer.send(Some(b"still here".to_vec())).unwrap();
    control.peer.send(None).unwrap();
    assert_eq!(returned(flow.await.unwrap()), b"still here");
}
