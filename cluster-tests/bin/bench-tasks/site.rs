//! Where a measurement takes place: a cluster, its agents, and connections to its leader.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Error;
use cluster_tests::cluster::{self, Cluster, Options};
use cluster_tests::traffic::bench_agent::{BenchAgent, Conduct};
use security::Role;
use tokio_rustls::rustls::ClientConfig;
use wire::v1::tasks_client::TasksClient;

/// Sessions enough to keep both sides busy, and few enough to fit a machine with two cores.
const BENCH_AGENTS: u32 = 4;
/// Of each: more than any row has in flight.
const BENCH_SLOTS: u32 = 256;
/// Connections of the load: a server takes a limited number of calls at once on each, and of submits on a stream.
pub const CONNECTIONS: usize = 8;
const LEASED: Duration = Duration::from_secs(30);

/// A cluster under measurement.
pub struct Site {
    pub cluster: Cluster,
    tls: Arc<ClientConfig>,
    // They answer as long as they are kept.
    agents: Vec<BenchAgent>,
}

pub type Client = TasksClient<tonic::transport::Channel>;

impl Site {
    /// Controllers, and agents that answer at once.
    pub async fn with_bench_agents(name: &str) -> Result<Site, Error> {
        let mut site = Site::without_agents(name).await?;
        site.add_bench_agents().await?;
        Ok(site)
    }

    /// Agents that answer at once.
    pub async fn add_bench_agents(&mut self) -> Result<(), Error> {
        let (layout, addresses) = (self.cluster.layout()?, self.cluster.addresses()?);
        for number in 1..=BENCH_AGENTS {
            let id = format!("b{number}");
            let directory = self.cluster.scratch().join(&id);
            let credentials = cluster::issue(&layout, Role::Agent, &id, &directory)?;
            let agent = BenchAgent::start(&credentials, &addresses, BENCH_SLOTS, Conduct::AtOnce)?;
            agent.until_leased(LEASED).await?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Controllers, and no agent yet.
    pub async fn without_agents(name: &str) -> Result<Site, Error> {
        Site::start(Options::new(name).agents(0)).await
    }

    /// Controllers, and two real agents.
    pub async fn with_agents(name: &str, slots: u32) -> Result<Site, Error> {
        Site::start(Options::new(name).slots(slots)).await
    }

    async fn start(options: Options) -> Result<Site, Error> {
        let cluster = Cluster::start(options).await?;
        let tls = cluster::grpc_tls(&cluster.credentials()?)?;
        Ok(Site {
            cluster,
            tls,
            agents: Vec::new(),
        })
    }

    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// Assignments that the bench agents answered.
    pub fn assigned(&self) -> u64 {
        self.agents
            .iter()
            .map(|agent| agent.counts().assigned)
            .sum()
    }

    /// Connections to the present leader: the load does not measure forwarding.
    pub async fn clients(&self) -> Result<Vec<Client>, Error> {
        let leader = self.cluster.leader().await?;
        let address = self.cluster.controller(&leader)?.grpc;
        let client = |_| TasksClient::new(cluster::channel(&address, &self.tls));
        Ok((0..CONNECTIONS).map(client).collect())
    }
}
