//! The client against small real servers: whom it asks, what it repeats, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use security::{Clients, Role};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

use super::*;
use crate::status::Reaction;
use crate::test_kit::{Fake, Pki, Running, free_address, handler};
use crate::v1;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// Calls that arrived at one server.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU32>);

impl Count {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A server whose submits end as `answer` says, given how many there were, this one included.
fn submits<F>(pki: &Pki, count: &Count, answer: F) -> Running
where
    F: Fn(u32) -> Result<u64, Status> + Send + Sync + 'static,
{
    let count = count.clone();
    let submit = handler(move |_: Request<v1::SubmitRequest>| {
        let answer = answer(count.next());
        async move {
            let task = v1::Task {
                id: answer?,
                ..v1::Task::default()
            };
            Ok(Response::new(v1::SubmitReply {
                task: Some(task),
                ..v1::SubmitReply::default()
            }))
        }
    });
    Running::start(
        pki.server(Clients::Optional),
        Fake {
            submit,
            ..Fake::default()
        },
    )
}

fn client(pki: &Pki, addresses: &[&str], patience: Duration) -> Client {
    let addresses: Vec<String> = addresses.iter().map(|&text| text.to_owned()).collect();
    let settings = Settings {
        patience,
        ..Settings::default()
    };
    Client::connect(&addresses, pki.client(Role::Client, "admin"), settings).unwrap()
}

async fn submit(client: &Client, request_id: &str) -> Result<u64, Error> {
    let request = v1::SubmitRequest {
        request_id: request_id.to_owned(),
        ..v1::SubmitRequest::default()
    };
    let reply = timeout(SOON, client.submit(&request))
        .await
        .expect("every call ends")?;
    Ok(reply.task.unwrap().id)
}

fn not_leader(leader: &str) -> Status {
    Failure::new(Code::NotLeader, "not me")
        .with_leader(Some(leader.to_owned()))
        .into()
}

fn failing(code: Code) -> Status {
    Failure::new(code, "no").into()
}

#[tokio::test]
async fn it_follows_the_leader_that_a_follower_names_and_asks_it_first_from_then_on() {
    let pki = Pki::new();
    let (led, followed) = (Count::default(), Count::default());
    let leader = submits(&pki, &led, |_| Ok(7));
    let address = leader.address.clone();
    let follower = submits(&pki, &followed, move |_| Err(not_leader(&address)));
    // The leader's address is learned from the answer alone.
    let client = client(&pki, &[&follower.address], SOON);
    // Even without a request id: the follower says that nothing was done.
    assert_eq!(submit(&client, "").await, Ok(7));
    assert_eq!(submit(&client, "").await, Ok(7));
    assert_eq!((led.get(), followed.get()), (2, 1));
}

#[tokio::test]
async fn dead_controllers_are_passed_over_even_by_what_must_not_be_repeated() {
    let pki = Pki::new();
    let server = submits(&pki, &Count::default(), |_| Ok(7));
    let client = client(
        &pki,
        &[&free_address(), &free_address(), &server.address],
        SOON,
    );
    assert_eq!(submit(&client, "").await, Ok(7));
}

#[tokio::test]
async fn it_waits_out_an_election() {
    let pki = Pki::new();
    let count = Count::default();
    let code = |n| {
        if n % 2 == 0 {
            Code::NoLeader
        } else {
            Code::NoQuorum
        }
    };
    let answer = move |n| if n < 6 { Err(failing(code(n))) } else { Ok(7) };
    let server = submits(&pki, &count, answer);
    let client = client(&pki, &[&server.address], SOON);
    assert_eq!(submit(&client, "").await, Ok(7));
    assert_eq!(count.get(), 6);
}

#[tokio::test]
async fn an_unknown_outcome_is_repeated_with_a_request_id_only() {
    let pki = Pki::new();
    let count = Count::default();
    let answer = |n| {
        if n % 2 == 1 {
            Err(failing(Code::OutcomeUnknown))
        } else {
            Ok(7)
        }
    };
    let server = submits(&pki, &count, answer);
    let client = client(&pki, &[&server.address], SOON);
    assert_eq!(submit(&client, "r-1").await, Ok(7));
    assert_eq!(count.get(), 2);

    let error = submit(&client, "").await.unwrap_err();
    assert_eq!(count.get(), 3);
    assert_eq!(
        (error.outcome, error.code()),
        (Outcome::Unknown, Code::OutcomeUnknown)
    );
    assert!(error.failure.hint.unwrap().contains("request id"));
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_leaves_the_outcome_unknown() {
    let pki = Pki::new();
    let arrived = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&arrived);
    let hold = handler(move |_: Request<v1::SubmitRequest>| {
        notify.notify_one();
        std::future::pending()
    });
    let tls = pki.server(Clients::Optional);
    let first = Running::start(
        tls,
        Fake {
            submit: hold,
            ..Fake::default()
        },
    );
    let second = submits(&pki, &Count::default(), |_| Ok(7));

    let both = client(&pki, &[&first.address, &second.address], SOON);
    let one = client(&pki, &[&first.address], Duration::from_millis(300));
    let (once, repeated) = (submit(&one, ""), submit(&both, "r-1"));
    let kill = async {
        arrived.notified().await;
        arrived.notified().await;
        first.kill();
    };
    let (once, repeated, ()) = tokio::join!(once, repeated, kill);
    assert_eq!(repeated, Ok(7));
    let error = once.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    assert!(error.failure.message.contains("broke"), "{error}");
}

#[tokio::test]
async fn at_the_deadline_it_says_what_it_met_and_whether_it_may_have_happened() {
    let pki = Pki::new();
    let patience = Duration::from_secs(1);
    let server = submits(&pki, &Count::default(), |_| Err(failing(Code::NoLeader)));
    let begun = Instant::now();
    let client1 = client(&pki, &[&free_address(), &server.address], patience);
    let error = submit(&client1, "r-1").await.unwrap_err();
    assert!(begun.elapsed() >= patience / 4 && begun.elapsed() < SOON / 2);
    assert_eq!(
        (error.code(), error.outcome),
        (Code::NoLeader, Outcome::Known)
    );
    assert_eq!(error.failure.request_id.as_deref(), Some("r-1"));
    assert!(error.failure.message.contains("tries"), "{error}");

    let answer = |n| {
        Err(failing(if n == 1 {
            Code::OutcomeUnknown
        } else {
            Code::NoQuorum
        }))
    };
    let server = submits(&pki, &Count::default(), answer);
    let client2 = client(&pki, &[&server.address], patience);
    let error = submit(&client2, "r-1").await.unwrap_err();
    assert_eq!(
        (error.code().reaction(), error.outcome),
        (Reaction::Unavailable, Outcome::Unknown)
    );
    assert!(
        error
            .failure
            .hint
            .as_deref()
            .unwrap()
            .contains("same request id")
    );

    let client3 = client(&pki, &[&free_address()], patience);
    let error = submit(&client3, "").await.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome),
        (Code::Unreachable, Outcome::Known)
    );
    assert!(
        error.failure.message.contains("connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_break_before_refused_dials_leaves_the_outcome_unknown_and_names_the_request() {
    let pki = Pki::new();
    let arrived = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&arrived);
    let hold = handler(move |_: Request<v1::SubmitRequest>| {
        notify.notify_one();
        std::future::pending()
    });
    let tls = pki.server(Clients::Optional);
    let server = Running::start(
        tls,
        Fake {
            submit: hold,
            ..Fake::default()
        },
    );
    let client = client(&pki, &[&server.address], Duration::from_secs(1));
    let kill = async {
        arrived.notified().await;
        server.kill();
    };
    let (submitted, ()) = tokio::join!(submit(&client, "r-1"), kill);
    let error = submitted.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome),
        (Code::OutcomeUnknown, Outcome::Unknown)
    );
    assert_eq!(error.failure.request_id.as_deref(), Some("r-1"));
    let message = &error.failure.message;
    assert!(
        message.contains("broke") && message.contains("connection refused"),
        "{message}"
    );
    assert!(error.failure.hint.unwrap().contains("same request id"));
}

#[tokio::test]
async fn what_is_safe_to_send_again_is_not_said_to_need_a_request_id() {
    let pki = Pki::new();
    let get = handler(|_: Request<v1::GetTaskRequest>| std::future::pending());
    let cancel = handler(|_: Request<v1::CancelTaskRequest>| std::future::pending());
    let fake = Fake {
        get,
        cancel,
        ..Fake::default()
    };
    let server = Running::start(pki.server(Clients::Optional), fake);
    let client = client(&pki, &[&server.address], Duration::from_millis(300));
    let read = client.get(&v1::GetTaskRequest::default()).await;
    let error = read.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome, error.failure.hint.as_deref()),
        (Code::OutcomeUnknown, Outcome::Known, Some("ask again"))
    );
    let cancelled = client.cancel(&v1::CancelTaskRequest::default()).await;
    let error = cancelled.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    let hint = error.failure.hint.unwrap();
    assert!(hint.contains("again is safe"), "{hint}");
}

#[tokio::test]
async fn a_controller_that_never_answers_is_given_up_for_another() {
    let pki = Pki::new();
    let silent = handler(|_: Request<v1::SubmitRequest>| std::future::pending());
    let tls = pki.server(Clients::Optional);
    let stopped = Running::start(
        tls,
        Fake {
            submit: silent,
            ..Fake::default()
        },
    );
    let server = submits(&pki, &Count::default(), |_| Ok(7));
    let addresses = [stopped.address.clone(), server.address.clone()];
    let settings = Settings {
        attempt: Duration::from_millis(200),
        ..Settings::default()
    };
    let tls = pki.client(Role::Client, "admin");
    let client = Client::connect(&addresses, tls, settings).unwrap();
    assert_eq!(submit(&client, "r-1").await, Ok(7));
    // And is not asked first again.
    let begun = Instant::now();
    assert_eq!(submit(&client, "r-2").await, Ok(7));
    assert!(begun.elapsed() < settings.attempt, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_rejection_is_final_and_known() {
    let pki = Pki::new();
    let count = Count::default();
    let server = submits(&pki, &count, |_| Err(failing(Code::OverLimit)));
    let other = submits(&pki, &Count::default(), |_| Ok(7));
    let client = client(&pki, &[&server.address, &other.address], SOON);
    let error = submit(&client, "r-1").await.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome),
        (Code::OverLimit, Outcome::Known)
    );
    assert_eq!(count.get(), 1);
}

#[tokio::test]
async fn a_cluster_that_is_not_ours_is_an_error_at_once() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = submits(&other, &Count::default(), |_| Ok(7));
    let begun = Instant::now();
    let client = client(&pki, &[&server.address], SOON);
    let error = submit(&client, "r-1").await.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome),
        (Code::NotTrusted, Outcome::Known)
    );
    assert!(
        error.failure.message.contains("not issued by the CA"),
        "{error}"
    );
    assert!(begun.elapsed() < SOON / 2);
}

#[tokio::test]
async fn one_foreign_address_among_good_ones_is_passed_over() {
    let (pki, other) = (Pki::new(), Pki::new());
    let foreign = submits(&other, &Count::default(), |_| Ok(1));
    let server = submits(&pki, &Count::default(), |_| Ok(7));
    let client = client(&pki, &[&foreign.address, &server.address], SOON);
    assert_eq!(submit(&client, "").await, Ok(7));
}

#[tokio::test]
async fn leaders_that_name_each_other_are_not_asked_in_a_tight_loop() {
    let pki = Pki::new();
    let count = Count::default();
    let (a, b) = (free_address(), free_address());
    let start = |at: &str, names: String| {
        let count = count.clone();
        let submit = handler(move |_: Request<v1::SubmitRequest>| {
            count.next();
            let answer = Err(not_leader(&names));
            async move { answer }
        });
        let fake = Fake {
            submit,
            ..Fake::default()
        };
        Running::start_at(at, pki.server(Clients::Optional), fake, Timers::default())
    };
    let (_one, _two) = (start(&a, b.clone()), start(&b, a.clone()));
    let client = client(&pki, &[&a, &b], Duration::from_secs(2));
    assert_eq!(
        submit(&client, "").await.unwrap_err().code(),
        Code::NotLeader
    );
    assert!(count.get() < 20, "{} calls in two seconds", count.get());
}

fn task(state: v1::TaskState, last_index: u64) -> v1::TaskReply {
    let task = v1::Task {
        state: state.into(),
        last_index,
        ..v1::Task::default()
    };
    v1::TaskReply {
        position: None,
        task: Some(task),
    }
}

#[tokio::test]
async fn waiting_goes_on_until_the_task_has_ended_or_the_time_is_over() {
    let pki = Pki::new();
    let count = Count::default();
    let seen = count.clone();
    let wait = handler(move |_: Request<v1::WaitTaskRequest>| {
        let state = match seen.next() {
            1 | 2 => v1::TaskState::Running,
            _ => v1::TaskState::Succeeded,
        };
        async move { Ok(Response::new(task(state, 9))) }
    });
    let tls = pki.server(Clients::Optional);
    let server = Running::start(
        tls,
        Fake {
            wait,
            ..Fake::default()
        },
    );
    let client = client(&pki, &[&server.address], SOON);
    let reply = client.wait(1, Duration::ZERO).await.unwrap();
    assert_eq!(reply.task.unwrap().state(), v1::TaskState::Running);
    let reply = client.wait(1, SOON).await.unwrap();
    assert_eq!(reply.task.unwrap().state(), v1::TaskState::Succeeded);
    assert_eq!(count.get(), 3);
}

#[tokio::test]
async fn a_watch_goes_on_elsewhere_and_tells_each_state_once() {
    let pki = Pki::new();
    let replies = |replies: Vec<Result<v1::TaskReply, Status>>| {
        handler(move |_: Request<v1::WatchTaskRequest>| {
            let stream = futures::stream::iter(replies.clone());
            async move { Ok(Response::new(Box::pin(stream) as _)) }
        })
    };
    let (queued, running) = (
        task(v1::TaskState::Queued, 1),
        task(v1::TaskState::Running, 2),
    );
    let ended = task(v1::TaskState::Succeeded, 3);
    let gone = failing(Code::ShuttingDown);
    let start = |watch| {
        Running::start(
            pki.server(Clients::Optional),
            Fake {
                watch,
                ..Fake::default()
            },
        )
    };
    let first = start(replies(vec![
        Ok(queued.clone()),
        Ok(running.clone()),
        Err(gone),
    ]));
    let client = client(&pki, &[&first.address], SOON);
    let mut watch = client.watch(1);
    assert_eq!(watch.next().await, Some(Ok(queued)));
    assert_eq!(watch.next().await, Some(Ok(running.clone())));
    let second = start(replies(vec![Ok(running), Ok(ended.clone())]));
    client.peers().prefer(&second.address);
    assert_eq!(watch.next().await, Some(Ok(ended)));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn addresses_are_checked_before_anything_is_sent() {
    let connect = |addresses: &[String]| {
        Client::connect(addresses, Pki::new().anonymous(), Settings::default()).err()
    };
    assert_eq!(connect(&[]).unwrap().code(), Code::Invalid);
    assert_eq!(connect(&["c1".to_owned()]).unwrap().code(), Code::Invalid);
    assert!(connect(&["c1:7400".to_owned()]).is_none());
}
