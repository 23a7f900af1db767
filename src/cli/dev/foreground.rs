//! The foreground of `dev`: starts the children, waits until they form a cluster, and then does only
//! what it is asked to.
//!
//! ```text
//!             ┌─ a child ended ────► say so, tell whoever asked for it, rewrite cluster.json
//! one loop ───┼─ another terminal ─► start, stop, kill
//!             └─ Ctrl-C, SIGTERM ──► agents, then controllers; a second one: at once
//! ```
//!
//! Other terminals are heard from the beginning, also while nothing is ready yet. That cluster.json could
//! not be written is said, and is no reason to stop a cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::Wishes;
use super::claim;
use super::control::{Asked, Control, Reply, Request, Verb};
use super::layout::{Layout, Part};
use super::leftover::{self, Lock};
use super::member::{Ended, Member, Order, in_words};
use super::ready::{self, Standing};
use super::{prepare, roster, summary};
use crate::args::Global;
use crate::client::load_file;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{self, Progress};

/// How long the first readiness may take: three logs, an election and two joins, on a slow disk.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// How long `dev start` waits for one process to work.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The name under which `--use` makes it the current context.
const CONTEXT_NAME: &str = "dev";

type Answer = oneshot::Sender<Result<Reply>>;

/// Runs until it is told to stop.
pub fn run(dir: &Path, wishes: Wishes, use_: bool, global: &Global) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused("system", error, ""))?;
    runtime.block_on(foreground(dir, wishes, use_, global))
}

async fn foreground(dir: &Path, wishes: Wishes, use_: bool, global: &Global) -> Result<Exit> {
    claim::check(dir)?;
    let lock = Lock::take(dir)?;
    let layout = Layout::resolve(dir, wishes)?;
    roster::remove(&layout)?;
    leftover::clear(&layout).await?;
    layout.check_ports()?;
    let prepared = prepare::prepare(&layout)?;
    let mut signals = Signals::listen()?;
    let (asked, requests) = mpsc::unbounded_channel();
    let control = Control::listen(dir, asked)?;
    let mut dev = Dev::new(layout, prepared.cluster_id, requests);
    let ran = dev.run(&prepared.lost, use_, global, &mut signals).await;
    // Whatever happened, no child is left behind.
    drop(control);
    dev.stop_all(&mut signals).await;
    roster::remove(&dev.layout)?;
    drop(lock);
    ran
}

/// SIGINT, SIGTERM, and SIGHUP for a terminal that was closed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Signals> {
        let on = |kind| signal(kind).map_err(|error| Failure::refused("system", error, ""));
        Ok(Signals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

struct Dev {
    layout: Layout,
    cluster_id: String,
    members: Vec<Member>,
    ended_in: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
    requests: mpsc::UnboundedReceiver<Asked>,
    /// Starts whose process works now, or could not be asked.
    started_in: mpsc::UnboundedSender<Started>,
    started: mpsc::UnboundedReceiver<Started>,
    /// Who waits for the end of a child.
    stopping: BTreeMap<String, Vec<Answer>>,
    /// Who waits until a child works.
    starting: BTreeMap<String, (u32, Answer)>,
    /// There was a cluster: cluster.json is kept up to date from then on.
    announced: bool,
}

struct Started {
    id: String,
    pid: u32,
    works: bool,
}

impl Dev {
    fn new(layout: Layout, cluster_id: String, requests: mpsc::UnboundedReceiver<Asked>) -> Dev {
        let (ended_in, ended) = mpsc::unbounded_channel();
        let (started_in, started) = mpsc::unbounded_channel();
        let controllers = layout
            .controller_ids()
            .into_iter()
            .map(|id| (Part::Controller, id));
        let agents = layout.agent_ids().into_iter().map(|id| (Part::Agent, id));
        let members = controllers
            .chain(agents)
            .map(|(part, id)| Member::new(&layout, part, &id));
        Dev {
            members: members.collect(),
            layout,
            cluster_id,
            ended_in,
            ended,
            requests,
            started_in,
            started,
            stopping: BTreeMap::new(),
            starting: BTreeMap::new(),
            announced: false,
        }
    }

    async fn run(
        &mut self,
        lost: &[String],
        use_: bool,
        global: &Global,
        signals: &mut Signals,
    ) -> Result<Exit> {
        for id in lost {
            output::note(&format!(
                "{id} is not started: its data is gone, and a controller that forgot its votes must \
                 not come back under its name"
            ));
        }
        for member in self
            .members
            .iter_mut()
            .filter(|member| !lost.contains(&member.id))
        {
            member.spawn(&self.ended_in)?;
        }
        let standing = tokio::select! {
            standing = self.first_readiness() => standing?,
            () = signals.next() => return Ok(Exit::Interrupted),
        };
        self.announce(&standing, use_, global)?;
        self.attend(signals).await?;
        Ok(Exit::Ok)
    }

    /// Until the cluster says that all of it works. A child that ends meanwhile by itself is the end of a
    /// first start; a cluster that is continued may go on without it.
    async fn first_readiness(&mut self) -> Result<Standing> {
        let progress = Progress::start("starting");
        let cluster = ready::connect(&self.layout)?;
        let deadline = tokio::time::Instant::now() + READY_LIMIT;
        loop {
            let running = || self.members.iter().filter(|member| member.pid().is_some());
            let ids: Vec<String> = running().map(|member| member.id.clone()).collect();
            let controllers = running()
                .filter(|member| member.part == Part::Controller)
                .count();
            let agents = running()
                .filter(|member| member.part == Part::Agent)
                .count();
            let tell = |standing: &Standing| progress.say(&standing.in_words(controllers, agents));
            tokio::select! {
                standing = ready::wait(&cluster, &ids, tell) => return Ok(standing),
                Some(ended) = self.ended.recv() => {
                    if self.was_asked_for(&ended) {
                        self.on_ended(&ended);
                    } else {
                        self.ended_early(&ended)?;
                    }
                }
                Some(started) = self.started.recv() => self.on_started(&started),
                Some(asked) = self.requests.recv() => self.on_asked(asked),
                () = tokio::time::sleep_until(deadline) => return Err(self.never_ready()),
            }
        }
    }

    /// Another terminal stopped, killed or started it, and waits for what becomes of it.
    fn was_asked_for(&self, ended: &Ended) -> bool {
        let member = self.members.iter().find(|member| member.id == ended.id);
        member.is_some_and(|member| member.leaving) || self.starting.contains_key(&ended.id)
    }

    fn ended_early(&mut self, ended: &Ended) -> Result<()> {
        let continued = self.layout.continued;
        let majority = usize::try_from(self.layout.controllers / 2 + 1).unwrap_or(usize::MAX);
        let Some(member) = self.members.iter_mut().find(|member| member.id == ended.id) else {
            return Ok(());
        };
        member.mark_ended();
        let text = summary::died(ended, member, &self.layout);
        let words = member
            .last_words()
            .unwrap_or_else(|| in_words(ended.status));
        let hint = member.where_log();
        let controllers = self
            .members
            .iter()
            .filter(|member| member.part == Part::Controller);
        if continued && controllers.filter(|member| member.pid().is_some()).count() >= majority {
            output::note(&text);
            return Ok(());
        }
        Err(Failure::refused(
            "start",
            format!("{} did not start: {words}", ended.id),
            hint,
        ))
    }

    fn never_ready(&self) -> Failure {
        let logs = self.layout.dir.join("log");
        let limit = READY_LIMIT.as_secs();
        Failure::unhealthy(
            format!("the cluster was not ready within {limit} s"),
            format!("the logs in {} say why", logs.display()),
        )
    }

    fn announce(&mut self, standing: &Standing, use_: bool, global: &Global) -> Result<()> {
        self.announced = true;
        self.write_roster()?;
        let used = if use_ {
            Some(crate::context::adopt(
                CONTEXT_NAME,
                load_file(&self.layout.context())?,
            )?)
        } else {
            None
        };
        let roster = roster::render(&self.layout, &self.cluster_id, &self.members);
        let text = summary::ready(&self.layout, standing, &self.members, used.as_deref());
        output::Answer {
            json: roster,
            ids: vec![self.layout.context().to_string_lossy().into_owned()],
            table: Box::new(move |_| text.clone()),
        }
        .print(global.output)
    }

    async fn attend(&mut self, signals: &mut Signals) -> Result<()> {
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                Some(ended) = self.ended.recv() => self.on_ended(&ended),
                Some(started) = self.started.recv() => self.on_started(&started),
                Some(asked) = self.requests.recv() => self.on_asked(asked),
            }
        }
    }

    fn on_asked(&mut self, Asked { request, answer }: Asked) {
        let known: Vec<&str> = self
            .members
            .iter()
            .map(|member| member.id.as_str())
            .collect();
        let Some(at) = known.iter().position(|id| *id == request.id) else {
            let hint = format!("there is: {}", known.join(", "));
            let failure = Failure::not_found(format!("there is no `{}` here", request.id), hint);
            reply(answer, Err(failure));
            return;
        };
        match (request.verb, self.members[at].pid()) {
            (Verb::Start, None) => self.start(at, answer),
            (Verb::Stop, Some(_)) => self.order(at, Order::Stop, &request, answer),
            (Verb::Kill, Some(_)) => self.order(at, Order::Kill, &request, answer),
            (Verb::Start, Some(pid)) => {
                let failure = Failure::refused(
                    "running",
                    format!("{} runs already (pid {pid})", request.id),
                    "",
                );
                reply(answer, Err(failure));
            }
            (Verb::Stop | Verb::Kill, None) => {
                let hint = format!(
                    "start it: {}",
                    summary::command(&self.layout, &format!("start {}", request.id))
                );
                reply(
                    answer,
                    Err(Failure::refused(
                        "not_running",
                        format!("{} does not run", request.id),
                        hint,
                    )),
                );
            }
        }
    }

    fn order(&mut self, at: usize, order: Order, request: &Request, answer: Answer) {
        self.members[at].order(order);
        self.stopping
            .entry(request.id.clone())
            .or_default()
            .push(answer);
    }

    fn start(&mut self, at: usize, answer: Answer) {
        let member = &mut self.members[at];
        let (id, part) = (member.id.clone(), member.part);
        if part == Part::Controller && !self.layout.identity(&id).exists() {
            let message = format!("{id}'s data is gone, so it must not come back under its name");
            reply(answer, Err(Failure::refused("data_lost", message, "")));
            return;
        }
        let pid = match member.spawn(&self.ended_in) {
            Ok(pid) => pid,
            Err(failure) => {
                reply(answer, Err(failure));
                return;
            }
        };
        self.starting.insert(id.clone(), (pid, answer));
        let (layout, started) = (self.layout.clone(), self.started_in.clone());
        tokio::spawn(async move {
            let waited =
                tokio::time::timeout(START_LIMIT, ready::wait_for(&layout, part, &id)).await;
            // The foreground may have ended meanwhile.
            let _gone = started.send(Started {
                id,
                pid,
                works: matches!(waited, Ok(Ok(()))),
            });
        });
        self.rewrite();
    }

    fn on_started(&mut self, started: &Started) {
        // Another one may have been started since.
        let known = self
            .starting
            .get(&started.id)
            .is_some_and(|(pid, _)| *pid == started.pid);
        if !known {
            return;
        }
        if let Some((pid, answer)) = self.starting.remove(&started.id) {
            let id = &started.id;
            let message = if started.works {
                format!("{id} runs (pid {pid})")
            } else {
                format!("{id} runs (pid {pid}), but does not work yet; see its log")
            };
            say(&message);
            reply(
                answer,
                Ok(Reply {
                    message,
                    pid: Some(pid),
                }),
            );
        }
    }

    fn on_ended(&mut self, ended: &Ended) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == ended.id) else {
            return;
        };
        let expected = member.leaving;
        member.mark_ended();
        let words = in_words(ended.status);
        if expected {
            say(&format!("{} (pid {}) {words}", ended.id, ended.pid));
        } else {
            say(&summary::died(ended, member, &self.layout));
        }
        if let Some((_, answer)) = self.starting.remove(&ended.id) {
            let why = member.last_words().unwrap_or(words.clone());
            let message = format!("{} did not start: {why}", ended.id);
            reply(
                answer,
                Err(Failure::refused("start", message, member.where_log())),
            );
        }
        for answer in self.stopping.remove(&ended.id).unwrap_or_default() {
            let message = format!("{} {words}", ended.id);
            reply(answer, Ok(Reply { message, pid: None }));
        }
        self.rewrite();
    }

    /// One of those that were all told to stop.
    fn on_stopped(&mut self, ended: &Ended) {
        let known = self.members.iter_mut().find(|member| member.id == ended.id);
        known.into_iter().for_each(Member::mark_ended);
        self.rewrite();
    }

    /// After a change, if cluster.json was written at all.
    fn rewrite(&self) {
        if !self.announced {
            return;
        }
        if let Err(failure) = self.write_roster() {
            say(&format!("cluster.json is not up to date: {failure}"));
        }
    }

    fn write_roster(&self) -> Result<()> {
        let roster = roster::render(&self.layout, &self.cluster_id, &self.members);
        roster::write(&self.layout, &roster)
    }

    /// Agents first, so that they can report; each has a limit of its own. Another signal ends the wait.
    async fn stop_all(&mut self, signals: &mut Signals) {
        if output::watched() && self.members.iter().any(|member| member.pid().is_some()) {
            // Below the `^C` that the terminal has put there.
            output::note("\nstopping; Ctrl-C again kills what is left");
        }
        for part in [Part::Agent, Part::Controller] {
            let of_part = |member: &&mut Member| member.part == part && member.pid().is_some();
            for member in self.members.iter_mut().filter(of_part) {
                member.order(Order::Stop);
            }
            while self
                .members
                .iter()
                .any(|member| member.part == part && member.pid().is_some())
            {
                tokio::select! {
                    Some(ended) = self.ended.recv() => {
                        self.on_stopped(&ended);
                        if part == Part::Controller {
                            self.hurry();
                        }
                    }
                    () = signals.next() => {
                        self.members.iter_mut().for_each(|member| member.order(Order::Kill));
                    }
                }
            }
        }
    }
}

impl Dev {
    /// Once most controllers have ended, there is nobody left to hand leadership over to: those that
    /// still try are told a second time, and end at once.
    fn hurry(&mut self) {
        let majority = usize::try_from(self.layout.controllers / 2 + 1).unwrap_or(usize::MAX);
        let left = |member: &&mut Member| member.part == Part::Controller && member.pid().is_some();
        let count = self.members.iter_mut().filter(left).count();
        if count < majority {
            self.members
                .iter_mut()
                .filter(left)
                .for_each(|member| member.order(Order::Stop));
        }
    }
}

/// What happens, while it happens. If nobody reads it, that is no reason to stop the cluster.
fn say(text: &str) {
    output::note(text);
}

fn reply(answer: Answer, result: Result<Reply>) {
    // The other terminal may have been closed.
    let _nobody_waits = answer.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than anything here takes.
    const SOON: Duration = Duration::from_secs(20);

    /// A foreground whose members sleep, and one end of the way to it.
    fn asleep(dir: &Path) -> (Dev, mpsc::UnboundedSender<Asked>) {
        let wishes = Wishes {
            base_port: Some(0),
            controllers: Some(1),
            agents: Some(1),
            ..Wishes::default()
        };
        let layout = Layout::resolve(dir, wishes).unwrap();
        prepare::prepare(&layout).unwrap();
        let (asked, requests) = mpsc::unbounded_channel();
        let mut dev = Dev::new(layout, "q1".into(), requests);
        for member in &mut dev.members {
            member.argv = ["sleep", "600"].map(str::to_owned).into();
            member.spawn(&dev.ended_in).unwrap();
        }
        (dev, asked)
    }

    async fn kill(id: &str, asked: &mpsc::UnboundedSender<Asked>) -> Reply {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            verb: Verb::Kill,
            id: id.into(),
        };
        asked.send(Asked { request, answer }).unwrap();
        let reply = tokio::time::timeout(SOON, answered).await;
        reply.expect("it is answered").unwrap().unwrap()
    }

    #[tokio::test]
    async fn another_terminal_is_heard_before_anything_is_ready() {
        let home = tempfile::tempdir().unwrap();
        let (mut dev, asked) = asleep(home.path());
        tokio::select! {
            standing = dev.first_readiness() => panic!("{:?}", standing.map_err(|failure| failure.message)),
            reply = kill("a1", &asked) => assert_eq!(reply.message, "a1 was killed by SIGKILL"),
        }
    }

    #[tokio::test]
    async fn a_roster_that_cannot_be_written_stops_no_cluster() {
        let home = tempfile::tempdir().unwrap();
        let (mut dev, asked) = asleep(home.path());
        dev.announced = true;
        std::fs::create_dir(dev.layout.roster()).unwrap();
        let mut signals = Signals::listen().unwrap();
        tokio::select! {
            ran = dev.attend(&mut signals) => panic!("{ran:?}"),
            reply = async { kill("a1", &asked).await; kill("c1", &asked).await } => {
                assert_eq!(reply.message, "c1 was killed by SIGKILL");
            }
        }
    }

    #[tokio::test]
    async fn the_roster_names_nobody_who_has_stopped_while_others_still_do() {
        let home = tempfile::tempdir().unwrap();
        let (mut dev, _asked) = asleep(home.path());
        dev.announced = true;
        dev.write_roster().unwrap();
        dev.members[1].order(Order::Stop);
        let ended = tokio::time::timeout(SOON, dev.ended.recv()).await;
        dev.on_stopped(&ended.unwrap().unwrap());
        let text = std::fs::read_to_string(dev.layout.roster()).unwrap();
        let roster: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(roster["agents"][0]["pid"], serde_json::Value::Null);
        let left = dev.members[0].pid().unwrap();
        assert_eq!(roster["controllers"][0]["pid"], left);
    }
}
