//! Snapshots: a whole state as bytes, and back.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::apply::blobs::Touched;
use crate::archive::Segment;
use crate::backend::{BackendKey, BackendSettings};
use crate::blob::{Blob, BlobDigest};
use crate::entry::{DecodeError, read_body, write};
use crate::id::{AgentId, Namespace, RuleId, TaskId};
use crate::index::Index;
use crate::join_token::{Joining, JoiningDump};
use crate::namespace::NamespaceSettings;
use crate::outcome::Outcome;
use crate::policy::{Policy, Scope};
use crate::requests::{self, Requests};
use crate::rule::Rule;
use crate::sample::{Magnitude, Sample, Work};
use crate::share::{Account, Tenant};
use crate::spec::TaskSpec;
use crate::state::{Meta, State};
use crate::table::{Dump, Rows, Table};
use crate::task::Task;
use crate::version::StateVersion;

/// The format of a state at version 1, which release 0.1.0 reads.
const FORMAT: u8 = 1;
/// Of one at any later version: the same, and behind it the back ends, the blobs, the packed request ids, the accounts, the
/// namespaces, the policies, the rules, the samples, and how long work takes. Release 0.1.0 does not look at the version, and must not go on from a state that it does not understand.
const VERSIONED: u8 = 2;

/// A snapshot at version 1, its fields by their places: the bytes are those of the release before, which can read them.
/// What came later stands behind it.
#[derive(Serialize)]
struct Dumping<'a, R> {
    meta: &'a Meta,
    tasks: Dump<'a, TaskId, Task>,
    specs: Dump<'a, TaskId, TaskSpec>,
    results: Dump<'a, TaskId, Outcome>,
    agents: Dump<'a, AgentId, Agent>,
    requests: R,
    segments: Dump<'a, u64, Segment>,
    joining: JoiningDump<'a>,
    hash_at: (u64, &'a serde_bytes::Bytes),
}

/// What a snapshot decodes into.
#[derive(Deserialize)]
struct Dumped {
    meta: Meta,
    tasks: Rows<TaskId, Task>,
    specs: Rows<TaskId, TaskSpec>,
    results: Rows<TaskId, Outcome>,
    agents: Rows<AgentId, Agent>,
    requests: requests::Rows,
    segments: Rows<u64, Segment>,
    joining: crate::join_token::Dumped,
    hash_at: (u64, serde_bytes::ByteArray<32>),
}

/// Snapshots.
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)
            .expect("our own types encode into memory");
        bytes
    }

    /// The same, piece by piece: a large state is never there twice.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, to: impl io::Write) -> io::Result<()> {
        let dump = Dumping {
            meta: &self.meta,
            tasks: self.tasks.dump(),
            specs: self.specs.dump(),
            results: self.results.dump(),
            agents: self.agents.dump(),
            requests: self.requests.dump(),
            segments: self.segments.dump(),
            joining: self.joining.dump(),
            hash_at: (self.hash_at.0, serde_bytes::Bytes::new(&self.hash_at.1)),
        };
        match self.state_version() {
            StateVersion::FIRST => write(FORMAT, &dump, to),
            _ => {
                let packs = self.requests.dump_packs();
                let later = (
                    dump,
                    self.backends.dump(),
                    self.blobs.dump(),
                    packs,
                    self.accounts.dump(),
                    self.namespaces.dump(),
                    self.policies.dump(),
                    self.rules.dump(),
                    self.samples.dump(),
                    self.services.dump(),
                );
                write(VERSIONED, &later, to)
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        State::read(bytes)
    }

    /// The state, its indexes rebuilt and its hash summed up from what was read.
    ///
    /// # Errors
    ///
    /// Where it was not written by [`State::write`] of a release that this one understands; those of the reader too,
    /// in words only.
    pub fn read(mut from: impl io::Read) -> Result<State, DecodeError> {
        type Versioned = (
            Dumped,
            Rows<BackendKey, BackendSettings>,
            Rows<BlobDigest, Blob>,
            Vec<(u32, requests::Rows)>,
            Rows<Tenant, Account>,
            Rows<Namespace, NamespaceSettings>,
            Rows<Scope, Policy>,
            Rows<RuleId, Rule>,
            Rows<AgentId, Sample>,
            Rows<AgentId, BTreeMap<Work, Magnitude>>,
        );
        let mut format = [0];
        from.read_exact(&mut format)
            .map_err(|_| DecodeError::Empty)?;
        let (
            dumped,
            backends,
            blobs,
            packs,
            accounts,
            namespaces,
            policies,
            rules,
            samples,
            services,
        ) = match format {
            [FORMAT] => (
                read_body::<Dumped>(from)?,
                Rows::default(),
                Rows::default(),
                Vec::new(),
                Rows::default(),
                Rows::default(),
                Rows::default(),
                Rows::default(),
                Rows::default(),
                Rows::default(),
            ),
            [VERSIONED] => read_body::<Versioned>(from)?,
            [found] => {
                let newest = VERSIONED;
                return Err(DecodeError::Format { found, newest });
            }
        };
        let (hash_index, hash) = dumped.hash_at;
        let mut state = State {
            meta: dumped.meta,
            tasks: Table::restore("task", dumped.tasks),
            specs: Table::restore("spec", dumped.specs),
            results: Table::restore("result", dumped.results),
            agents: Table::restore("agent", dumped.agents),
            requests: Requests::restore(dumped.requests, packs),
            segments: Table::restore("segment", dumped.segments),
            joining: Joining::restore(dumped.joining),
            backends: Table::restore("backend", backends),
            blobs: Table::restore("blob", blobs),
            accounts: Table::restore("account", accounts),
            namespaces: Table::restore("namespace", namespaces),
            policies: Table::restore("policy", policies),
            rules: Table::restore("rule", rules),
            samples: Table::restore("sample", samples),
            services: Table::restore("service", services),
            touched: Touched::default(),
            index: Index::default(),
            hash_at: (hash_index, hash.into_array()),
        };
        state.index = state.rebuilt_index();
        Ok(state)
    }
}
