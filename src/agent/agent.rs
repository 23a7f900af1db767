//! The shell around the worker: starts everything, feeds it what happens, carries out what it
//! decides, and stops everything in reverse.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use model::{AgentId, AgentProfile, AgentProtocol, Backend, Fence, Millis};
use security::{Credentials, KeyFiles, Role};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use wire::v1::agent_frame::Body;

use crate::clock;
use crate::config::Config;
use crate::controllers::Controllers;
use crate::data_dir::DataDir;
use crate::error::Error;
use crate::inputs::{self, Inputs};
use crate::journal::{Durable, Journal, Recovered};
use crate::lease::Until;
use crate::load::Meter;
use crate::machine::Machine;
use crate::openai::OpenAi;
use crate::output::{self, Logs};
use crate::process::{Guard, Marks, Settings};
use crate::recovery;
use crate::renewal;
use crate::runner::Runner;
use crate::session::{self, Context, Event, Unsaid, Voice};
use crate::worker::{Effect, Input, Nature, SessionId, Worker};

/// How often renewals, repeated verdicts and the lease are looked at. The lease's margin of 3 s is
/// for this, too.
const TICK: Duration = Duration::from_millis(200);
/// How often the load is measured and told.
const STATUS: Duration = Duration::from_secs(5);
/// How often old output is looked for.
const SWEEP: Duration = Duration::from_secs(10 * 60);
/// After the grace, how long a stopping agent waits for its processes to be gone.
const LAST_PROCESSES: Duration = Duration::from_secs(3);
/// How long a stopping agent waits for the cluster to note what it owes. What is not noted is
/// reported at the next start.
const LAST_REPORTS: Duration = Duration::from_secs(5);

/// How long the journal may take to write what is left.
const LAST_RECORDS: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_millis(5);

/// Runs an agent until `shutdown`, or until it can't go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.validate()?;
    let (mut agent, journal_thread) = Agent::start(&config).await?;
    let outcome = agent.work(&shutdown).await;
    let outcome = match outcome {
        Ok(()) => agent.leave(config.grace()).await,
        failed @ Err(_) => failed,
    };
    agent.end(journal_thread).await;
    outcome.map_err(|error| Error::Fatal(Box::new(error)))
}

struct Agent {
    worker: Worker,
    runner: Runner,
    journal: Journal,
    logs: Arc<Logs>,
    lease: Until,
    guard: Option<Guard>,
    meter: Meter,
    context: Arc<Context>,
    book: Controllers,
    /// One task for each controller's address.
    links: JoinSet<()>,
    by_address: HashMap<String, AbortHandle>,
    /// The same, for whoever asks a controller beside the sessions.
    dialled: watch::Sender<Vec<String>>,
    sessions: HashMap<SessionId, Line>,
    /// Sessions that were given up, and the worker is not told yet.
    deaf: Vec<SessionId>,
    events: UnboundedReceiver<Event>,
    durable: UnboundedReceiver<Vec<Durable>>,
    started: UnboundedReceiver<Fence>,
    /// What the back ends offer.
    offered: watch::Receiver<Vec<Backend>>,
    /// What was fetched for attempts.
    inputs: Arc<Inputs>,
    /// Held so that no other process uses the directory.
    dir: DataDir,
}

/// Where a session is with, and how to speak on it.
struct Line {
    address: String,
    voice: Voice,
}

impl Agent {
    async fn start(config: &Config) -> Result<(Agent, JoinHandle<()>), Error> {
        let cluster_id = cluster_of(config)?;
        let dir = DataDir::open(&config.data_dir, &config.id, &cluster_id)?;
        let (durable_sender, mut durable) = unbounded_channel();
        let (journal, mut recovered, thread) = Journal::open(&dir.journal(), durable_sender)?;
        let logs = Arc::new(Logs::start(config.log_limits(&dir.logs()))?);
        recovery::end_leftovers(&recovered, dir.instance());
        settle_interrupted(&mut recovered, &logs, &journal, &mut durable).await?;
        recovery::remove_scratch(&dir.scratch());

        let marks = Marks::new(dir.instance().clone());
        let guard = start_guard(config, &marks)?;
        let lease = Until::default();
        let machine = Machine::of(config).await;
        let settings = settings_of((config, &machine), marks, &lease, &dir);
        let (started_sender, started) = unbounded_channel();
        let inferences = OpenAi::new(&config.backends)?;
        let (offered, asks_here) = (inferences.offered(), inferences.are_here());
        let (journal_too, logs_too) = (journal.clone(), Arc::clone(&logs));
        let dialled = watch::Sender::default();
        let source = inputs::controllers(config.identity_dir(), dialled.subscribe());
        let inputs = Arc::new(Inputs::open(dir.root(), source)?);
        let executors = (inferences, Arc::clone(&inputs));
        let runner = Runner::new(settings, executors, logs_too, journal_too, started_sender)?;
        let profile = profile_of(config, &recovered, (runner.limits(), machine.supply))?;
        let nature = Nature::of(&profile, asks_here);
        let (events_sender, events) = unbounded_channel();
        let context = Context {
            profile,
            cluster_id,
            identity_dir: config.identity_dir(),
            logs: Arc::clone(&logs),
            events: events_sender,
            next_session: AtomicU64::new(1),
            generation: AtomicU64::new(dir.generation()),
            offered: offered.clone(),
        };
        let (book, first) =
            Controllers::new(&config.controllers, config.controller_addresses.clone());
        let mut agent = Agent {
            worker: Worker::new(nature, &recovered),
            runner,
            journal,
            logs,
            lease,
            guard,
            meter: Meter::start()?,
            context: Arc::new(context),
            book,
            links: JoinSet::new(),
            by_address: HashMap::new(),
            dialled,
            inputs,
            sessions: HashMap::new(),
            deaf: Vec::new(),
            events,
            durable,
            started,
            offered,
            dir,
        };
        first.into_iter().for_each(|address| agent.dial(address));
        let dialled = agent.dialled.subscribe();
        agent
            .links
            .spawn(renewal::keep(config.identity_dir(), dialled));
        Ok((agent, thread))
    }

    /// Works until it is told to stop.
    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        tracing::info!(agent = %self.context.profile.id, "started");
        let mut clocks = Clocks::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                stepped = self.step(&mut clocks) => stepped?,
            }
        }
    }

    /// Ends what runs, gives back what did not start, and reports both.
    async fn leave(&mut self, grace: Duration) -> Result<(), Error> {
        tracing::info!("stopping");
        let mut clocks = Clocks::new();
        self.handle(Input::Stop);
        let quiet = async {
            while !self.worker.is_quiet() {
                self.step(&mut clocks).await?;
            }
            Ok::<(), Error>(())
        };
        match timeout(grace + LAST_PROCESSES, quiet).await {
            Ok(stepped) => stepped?,
            Err(_) => tracing::warn!("some processes did not end in time"),
        }
        let settled = async {
            while !self.worker.is_settled() {
                self.step(&mut clocks).await?;
            }
            Ok::<(), Error>(())
        };
        match timeout(LAST_REPORTS, settled).await {
            Ok(stepped) => stepped,
            Err(_) => {
                let left = self.worker.unsettled();
                tracing::warn!(
                    left,
                    "leaving with reports that the cluster did not note yet"
                );
                Ok(())
            }
        }
    }

    async fn end(mut self, journal_thread: JoinHandle<()>) {
        self.links.shutdown().await;
        self.runner.shutdown().await;
        if let Some(guard) = self.guard.take() {
            guard.end().await;
        }
        drop(self.journal);
        // It ends once the last handle is dropped; attempts that could not be killed may hold one.
        let written = async {
            while !journal_thread.is_finished() {
                tokio::time::sleep(MOMENT).await;
            }
        };
        match timeout(LAST_RECORDS, written).await {
            Ok(()) => drop(journal_thread.join()),
            Err(_) => tracing::warn!("left without the last records of the journal"),
        }
        tracing::info!("stopped");
    }

    /// Waits for one thing to happen, and handles it with all else of its sort that is ready.
    async fn step(&mut self, clocks: &mut Clocks) -> Result<(), Error> {
        tokio::select! {
            Some(event) = self.events.recv() => {
                self.event(event)?;
                while let Ok(event) = self.events.try_recv() {
                    self.event(event)?;
                }
            }
            told = self.durable.recv() => match told {
                Some(told) => self.durable(told)?,
                None => return Err(Error::Journal("its thread is gone".into())),
            },
            Some(fence) = self.started.recv() => self.handle(Input::Started(fence)),
            (fence, ended) = self.runner.next() => self.handle(Input::Ended { fence, ended }),
            Ok(()) = self.offered.changed() => self.tell_offered(),
            _ = clocks.tick.tick() => self.handle(Input::Tick),
            _ = clocks.status.tick() => self.meter.ask(),
            Some(load) = self.meter.next() => self.handle(Input::Load(load)),
            _ = clocks.sweep.tick() => self.sweep(),
        }
        Ok(())
    }

    fn durable(&mut self, told: Vec<Durable>) -> Result<(), Error> {
        for durable in told {
            match durable {
                Durable::Begun(fence) => self.handle(Input::Begun(fence)),
                Durable::Ended(fence) => self.handle(Input::Recorded(fence)),
                Durable::Failed(reason) => return Err(Error::Journal(reason)),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Opened {
                session,
                address,
                welcome,
                generation,
                voice,
            } => {
                if self.dir.generation() == 0 {
                    self.dir.remember_generation(generation)?;
                    self.context.generation.store(generation, Ordering::Relaxed);
                }
                self.opened(session, &address, &welcome, voice);
            }
            Event::Said { session, .. } | Event::Latency { session, .. }
                if !self.sessions.contains_key(&session) =>
            {
                tracing::debug!(?session, "heard from a session that was given up");
            }
            Event::Said {
                session,
                stamp,
                said,
            } => {
                self.handle(Input::Said {
                    session,
                    stamp,
                    said,
                });
            }
            Event::Latency { session, micros } => self.handle(Input::Latency { session, micros }),
            Event::Moved { session, welcome } => {
                if self.sessions.contains_key(&session) {
                    self.learn(&welcome);
                }
            }
            // Whoever asked may be gone already.
            Event::Turn(taken) => taken.send(()).unwrap_or_default(),
            Event::Closed { session } => {
                if let Some(line) = self.sessions.remove(&session) {
                    self.book.closed(&line.address);
                    self.handle(Input::Closed { session });
                }
            }
        }
        Ok(())
    }

    fn opened(
        &mut self,
        session: SessionId,
        address: &str,
        welcome: &wire::v1::Welcome,
        voice: Voice,
    ) {
        if !self.book.answered(address, &welcome.controller) {
            tracing::info!(%address, controller = %welcome.controller, "is known by another address");
            if let Some(link) = self.by_address.remove(address) {
                link.abort();
            }
            self.tell_dialled();
            return;
        }
        let address = address.to_owned();
        self.sessions.insert(session, Line { address, voice });
        self.handle(Input::Opened { session });
        // They may have changed since the hello.
        if !self.offered.borrow().is_empty() {
            self.say(session, self.backends());
        }
        self.learn(welcome);
    }

    fn backends(&self) -> Body {
        let backends = wire::convert::backends_out(&self.offered.borrow());
        Body::Backends(wire::v1::Backends { backends })
    }

    /// To every controller: each may lead tomorrow.
    fn tell_offered(&mut self) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.say(session, self.backends());
        }
    }

    /// Dials controllers that were not known yet.
    fn learn(&mut self, welcome: &wire::v1::Welcome) {
        let ids = welcome.controller_ids.iter().map(|id| Some(id.as_str()));
        let ids = ids.chain(std::iter::repeat(None));
        let found: Vec<String> = welcome
            .controllers
            .iter()
            .zip(ids)
            .filter_map(|(addresses, id)| self.book.add(id, &addresses.grpc))
            .collect();
        found.into_iter().for_each(|address| self.dial(address));
    }

    fn dial(&mut self, address: String) {
        let link = session::keep(Arc::clone(&self.context), address.clone());
        let handle = self.links.spawn(link);
        self.by_address.insert(address, handle);
        self.tell_dialled();
    }

    fn tell_dialled(&self) {
        let all = self.by_address.keys().cloned();
        self.dialled.send_replace(all.collect());
    }

    /// Gives the worker an input, and carries out what it decides.
    fn handle(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next {
            let mut effects = Vec::new();
            self.worker.handle(now(), input, &mut effects);
            effects
                .into_iter()
                .for_each(|effect| self.carry_out(effect));
            next = self.deaf.pop().map(|session| Input::Closed { session });
        }
    }

    fn say(&mut self, session: SessionId, body: Body) {
        let Some(line) = self.sessions.get(&session) else {
            return;
        };
        match line.voice.say(body) {
            Ok(()) => {}
            // It just ended: the worker is told next, and says it elsewhere.
            Err(Unsaid::Ended) => {
                tracing::debug!(?session, "said to a session that ended");
            }
            Err(Unsaid::Full) => {
                tracing::warn!(?session, "a controller does not read: ending its session");
                if let Some(line) = self.sessions.remove(&session) {
                    self.book.closed(&line.address);
                }
                self.deaf.push(session);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Say { session, body } => self.say(session, body),
            Effect::Leased { until } => {
                // Before anything starts under it.
                if let Some(guard) = &mut self.guard {
                    guard.renewed(until);
                }
                self.lease.set(until);
            }
            Effect::Open(fence) => drop(self.logs.open(fence)),
            Effect::Begin { fence, number } => self.journal.begun(fence, number),
            Effect::Start(attempt) => self.runner.start(attempt),
            Effect::SetBackends(settings) => self.runner.set_backends(&settings),
            Effect::End { fence, urgency } => self.runner.end(fence, urgency),
            Effect::Record(verdict) => self.journal.ended(*verdict),
            Effect::Settle { fence, fate } => {
                self.journal.settled(fence);
                self.logs.settle(fence, fate);
            }
        }
    }

    fn sweep(&self) {
        let inputs = Arc::clone(&self.inputs);
        drop(tokio::task::spawn_blocking(move || match inputs.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed fetched files"),
            Err(error) => tracing::warn!(%error, "could not remove fetched files"),
        }));
        let logs = Arc::clone(&self.logs);
        // Deleting may take long, and nobody waits for it.
        drop(tokio::task::spawn_blocking(
            move || match output::remove_old(&logs, SystemTime::now()) {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed old output"),
                Err(error) => tracing::warn!(%error, "could not remove old output"),
            },
        ));
    }
}

fn now() -> Millis {
    clock::since_boot()
}

/// What happens by itself.
struct Clocks {
    tick: tokio::time::Interval,
    status: tokio::time::Interval,
    sweep: tokio::time::Interval,
}

impl Clocks {
    fn new() -> Clocks {
        let every = |span| {
            let mut clock = interval(span);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock
        };
        Clocks {
            tick: every(TICK),
            status: every(STATUS),
            sweep: every(SWEEP),
        }
    }
}

fn settings_of(
    (config, machine): (&Config, &Machine),
    marks: Marks,
    lease: &Until,
    dir: &DataDir,
) -> Settings {
    Settings {
        marks,
        lease: lease.clone(),
        scratch: dir.scratch(),
        path: config.path.clone(),
        gpus: machine.gpu_names.clone(),
        grace: config.grace(),
    }
}

/// The cluster that the certificate is of, which must be this agent's own.
fn cluster_of(config: &Config) -> Result<String, Error> {
    let directory = config.identity_dir();
    let credentials = Credentials::load(&KeyFiles::in_directory(&directory))?;
    let identity = credentials.identity();
    if identity.role() != Role::Agent || identity.id() != config.id {
        return Err(Error::WrongIdentity {
            path: directory,
            found: identity.to_string(),
            wanted: config.id.clone(),
        });
    }
    Ok(identity.cluster().to_owned())
}

fn profile_of(
    config: &Config,
    recovered: &Recovered,
    (limits, supply): (&str, model::Supply),
) -> Result<AgentProfile, Error> {
    let id = AgentId::new(&config.id).map_err(|error| {
        Error::Config(crate::config::Invalid {
            setting: "id",
            given: config.id.clone(),
            why: error.to_string(),
        })
    })?;
    Ok(AgentProfile {
        id,
        incarnation: recovered.incarnation,
        slots: config.slots,
        labels: config.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: limits.to_owned(),
        backends: Vec::new(),
        protocol: AgentProtocol::NEWEST,
        supply: Some(supply),
    })
}

fn start_guard(config: &Config, marks: &Marks) -> Result<Option<Guard>, Error> {
    let Some(program) = &config.guard else {
        return Ok(None);
    };
    let guard = Guard::start(program, marks).map_err(Error::io(program))?;
    Ok(Some(guard))
}

/// Writes down that what an earlier process left was interrupted, before anybody is told of it.
async fn settle_interrupted(
    recovered: &mut Recovered,
    logs: &Logs,
    journal: &Journal,
    durable: &mut UnboundedReceiver<Vec<Durable>>,
) -> Result<(), Error> {
    let verdicts = recovery::interrupted(recovered, logs);
    let mut waiting = verdicts.len();
    for verdict in verdicts {
        journal.ended(verdict.clone());
        if let Some(held) = recovered.held.get_mut(&verdict.fence) {
            held.verdict = Some(verdict);
        }
    }
    while waiting > 0 {
        let told = durable.recv().await;
        for durable in told.ok_or_else(|| Error::Journal("its thread is gone".into()))? {
            match durable {
                Durable::Ended(_) => waiting -= 1,
                Durable::Begun(_) => {}
                Durable::Failed(reason) => return Err(Error::Journal(reason)),
            }
        }
    }
    Ok(())
}
