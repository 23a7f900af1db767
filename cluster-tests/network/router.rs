//! The back end for root: a namespace for each node, joined by one more that routes between them.
//!
//! Node *i* is `10.99.i.2` behind its `eth0`; the router's end of that cable is `10.99.i.1` and bears the
//! node's name. All that happens to packets happens in the router, by the table of [`rules`] and, where they
//! have to be held back or changed, by the [`shaper`](super::shaper). Nothing of it is in the machine's own namespace: the
//! harness reaches the controllers through relays, whose outgoing sockets were made in the client's.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::task::JoinSet;

use crate::Error;
use crate::network::proxy::{self, Dial, Shared};
use crate::network::rules::{self, Places};
use crate::network::shaper::Shaper;
use crate::network::{CLIENT, Edge, Effects, Harm, Namespace, Service};

/// In a namespace of its own a node needs no port of its own.
const PORT: u16 = 7400;
/// Nodes that the numbering has room for.
const NODES_MAX: usize = 200;

/// Namespaces, cables and rules of one cluster. All of it goes with this value.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
    nodes: BTreeMap<String, Node>,
    relays: BTreeMap<(String, Service), SocketAddr>,
    shaper: Mutex<Option<Shaper>>,
    // Ends the relays when it goes.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Node {
    number: usize,
    namespace: Arc<Namespace>,
}

impl Router {
    /// Whether namespaces and nft work here; looked at once.
    pub fn possible() -> Result<(), String> {
        static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
        POSSIBLE.get_or_init(probe).clone()
    }

    pub async fn create(controllers: &[String], agents: &[String]) -> Result<Router, Error> {
        Router::possible().map_err(Error::Invalid)?;
        let mut router = Router {
            namespace: Namespace::create()?,
            nodes: BTreeMap::new(),
            relays: BTreeMap::new(),
            shaper: Mutex::new(None),
            _tasks: JoinSet::new(),
        };
        let client = CLIENT.to_owned();
        let names = controllers.iter().chain(agents).chain([&client]);
        for (index, name) in names.enumerate() {
            router.connect(name, index + 1)?;
        }
        router.forward()?;
        for controller in controllers {
            for service in Service::ALL {
                router.relay(controller, service).await?;
            }
        }
        Ok(router)
    }

    /// Makes a node's namespace, and the cable to it.
    fn connect(&mut self, name: &str, number: usize) -> Result<(), Error> {
        if number > NODES_MAX {
            return Err(Error::Invalid(format!("more than {NODES_MAX} nodes")));
        }
        let namespace = Namespace::create()?;
        let theirs = namespace.path();
        let ours = format!(
            "link set lo up\n\
             link add {name} type veth peer name eth0 netns {}\n\
             addr add 10.99.{number}.1/24 dev {name}\n\
             link set {name} up\n",
            theirs.display()
        );
        self.namespace.tool("ip", &["-batch", "-"], &ours)?;
        let node = Node {
            number,
            namespace: Arc::new(namespace),
        };
        let inside = format!(
            "link set lo up\n\
             addr add 10.99.{number}.2/24 dev eth0\n\
             {}",
            up(number)
        );
        node.namespace.tool("ip", &["-batch", "-"], &inside)?;
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    fn forward(&self) -> Result<(), Error> {
        let path = Path::new("/proc/sys/net/ipv4/ip_forward");
        // The file shows the namespace of whoever opens it.
        let written = self.namespace.within(|| fs::write(path, "1"))?;
        written.map_err(Error::file("writing", path))?;
        self.namespace
            .tool("nft", &["-f", "-"], rules::TABLE)
            .map(drop)
    }

    async fn relay(&mut self, controller: &str, service: Service) -> Result<(), Error> {
        let Some(client) = self.nodes.get(CLIENT) else {
            return Ok(());
        };
        let dial = Dial::Within(Arc::clone(&client.namespace));
        let (edge, target) = (
            Edge::new(CLIENT, controller),
            self.address(controller, service),
        );
        // What lies on the edge is the router's business.
        let (address, work) = proxy::listen(edge, target, dial, Shared::new()).await?;
        self.relays
            .insert((controller.to_owned(), service), address);
        self._tasks.spawn(work);
        Ok(())
    }

    pub fn address(&self, node: &str, service: Service) -> String {
        format!("{}:{}", self.host(node), PORT + service.offset())
    }

    /// Where the harness finds a controller.
    pub fn outside(&self, controller: &str, service: Service) -> String {
        let found = self.relays.get(&(controller.to_owned(), service));
        found.map_or_else(|| "127.0.0.1:0".to_owned(), SocketAddr::to_string)
    }

    pub fn namespace(&self, node: &str) -> Option<&Namespace> {
        self.nodes.get(node).map(|node| node.namespace.as_ref())
    }

    /// Leads from what lies on the edges to what is to lie there, in one transaction.
    pub fn change(&self, old: &Effects, new: &Effects) -> Result<(), Error> {
        if let Some(unknown) = new
            .keys()
            .flat_map(|edge| [&edge.from, &edge.to])
            .find(|name| !self.nodes.contains_key(*name))
        {
            return Err(Error::Invalid(format!("there is no node {unknown}")));
        }
        self.shape(old, new)?;
        let script = rules::transaction(self, old, new);
        match script.is_empty() {
            true => Ok(()),
            false => self.namespace.tool("nft", &["-f", "-"], &script).map(drop),
        }
    }

    fn shape(&self, old: &Effects, new: &Effects) -> Result<(), Error> {
        let mut shaper = self.shaper.lock().unwrap_or_else(PoisonError::into_inner);
        if shaper.is_none() && new.values().any(rules::Effect::is_shaped) {
            *shaper = Some(Shaper::start(&self.namespace)?);
        }
        if let Some(shaper) = shaper.as_ref() {
            let marked = |edge: &Edge| (self.mark(edge), edge.clone());
            shaper.change(old, new, new.keys().map(marked).collect());
        }
        Ok(())
    }

    /// What was counted on every edge since it was disturbed so.
    pub fn counted(&self, harm: Harm) -> Result<BTreeMap<Edge, u64>, Error> {
        match harm {
            Harm::Silence | Harm::Reset | Harm::Loss | Harm::Duplication => self.packets(harm),
            Harm::Delay | Harm::Rate | Harm::Corruption | Harm::HalfClose => {
                let shaper = self.shaper.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(shaper
                    .as_ref()
                    .map(|it| it.counts().of(harm))
                    .unwrap_or_default())
            }
        }
    }

    fn packets(&self, harm: Harm) -> Result<BTreeMap<Edge, u64>, Error> {
        let list = ["-j", "list", "table", "ip", "chaos"];
        let listing = self.namespace.tool("nft", &list, "")?;
        let counted = rules::packets(&listing, harm).map_err(Error::Invalid)?;
        let named = |end: &str| {
            let of_host = self.nodes.keys().find(|name| self.host(name) == end);
            of_host.map_or_else(|| end.to_owned(), Clone::clone)
        };
        let edges = counted.into_iter().filter_map(|(ends, count)| {
            let (from, to) = ends.split_once(' ')?;
            Some((Edge::new(&named(from), &named(to)), count))
        });
        Ok(edges.collect())
    }

    pub fn link_down(&self, node: &str) -> Result<(), Error> {
        self.link(node, |_| "link set eth0 down\n".to_owned())
    }

    pub fn link_up(&self, node: &str) -> Result<(), Error> {
        // Its routes went with it.
        self.link(node, up)
    }

    /// Whether the router's end of a node's cable sees the other end.
    pub fn has_carrier(&self, node: &str) -> Result<bool, Error> {
        let shown = self
            .namespace
            .tool("ip", &["link", "show", "dev", node], "")?;
        Ok(!shown.contains("NO-CARRIER"))
    }

    fn link(&self, node: &str, script: impl Fn(usize) -> String) -> Result<(), Error> {
        let missing = || Error::Invalid(format!("there is no node {node}"));
        let found = self.nodes.get(node).ok_or_else(missing)?;
        let script = script(found.number);
        found
            .namespace
            .tool("ip", &["-batch", "-"], &script)
            .map(drop)
    }
}

impl Places for Router {
    fn host(&self, node: &str) -> String {
        let number = self.nodes.get(node).map_or(0, |node| node.number);
        format!("10.99.{number}.2")
    }

    fn interface(&self, node: &str) -> String {
        node.to_owned()
    }

    fn mark(&self, edge: &Edge) -> u32 {
        let number = |name: &str| self.nodes.get(name).map_or(0, |node| node.number);
        u32::try_from(number(&edge.from) * 1_000 + number(&edge.to)).unwrap_or(u32::MAX)
    }
}

fn up(number: usize) -> String {
    format!("link set eth0 up\nroute add default via 10.99.{number}.1\n")
}

fn probe() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    for (program, version) in [("ip", "-V"), ("nft", "--version"), ("nsenter", "--version")] {
        let ran = Command::new(program).arg(version).output();
        ran.map_err(|error| format!("{program}: {error}"))?;
    }
    let namespace = Namespace::create().map_err(|error| error.to_string())?;
    // What the kernel lacks is seen only when it is used.
    let table = format!(
        "{}\nadd chain ip chaos some\n\
         add rule ip chaos some numgen random mod 100 < 1 counter drop\n\
         add rule ip chaos some numgen random mod 100 < 1 counter dup to 10.99.1.2 device \"lo\"\n",
        rules::TABLE
    );
    let tried = namespace.tool("nft", &["-f", "-"], &table);
    tried.map(drop).map_err(|error| error.to_string())
}
