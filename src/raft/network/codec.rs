//! openraft's messages and their form on the wire. Everything that comes in is checked: a peer of another
//! release may send what this one does not know, and that is an error, never a guess.

use bytes::Bytes;
use openraft::AsyncRuntime;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use tonic::Status;
use wire::v1;

use crate::consensus::{Entry, LogId, Types, Vote, log_id, term_of};
use crate::store::codec::{decode_entry, encode_entry};

pub fn put_vote(vote: &Vote) -> v1::PeerVote {
    v1::PeerVote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub fn vote(message: Option<v1::PeerVote>) -> Result<Vote, Status> {
    let message = message.ok_or_else(|| missing("vote"))?;
    Ok(match message.committed {
        true => Vote::new_committed(message.term, message.node),
        false => Vote::new(message.term, message.node),
    })
}

pub fn put_log_id(id: &LogId) -> v1::PeerLogId {
    v1::PeerLogId {
        term: term_of(id),
        index: id.index,
    }
}

pub fn log_id_of(message: v1::PeerLogId) -> LogId {
    log_id(message.term, message.index)
}

pub fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the message lacks its {what}"))
}

/// Encodes a request. The header rides along where the receiver has not seen one yet.
pub fn put_append<R: AsyncRuntime>(
    request: &AppendEntriesRequest<Types<R>>,
    header: Option<v1::PeerHeader>,
) -> v1::PeerAppendRequest {
    v1::PeerAppendRequest {
        header,
        vote: Some(put_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(put_log_id),
        entries: request.entries.iter().map(encode_entry).collect(),
        committed: request.leader_commit.as_ref().map(put_log_id),
    }
}

pub fn append<R: AsyncRuntime>(
    message: v1::PeerAppendRequest,
) -> Result<AppendEntriesRequest<Types<R>>, Status> {
    Ok(AppendEntriesRequest {
        vote: vote(message.vote)?,
        prev_log_id: message.previous.map(log_id_of),
        entries: message
            .entries
            .iter()
            .map(entry)
            .collect::<Result<_, _>>()?,
        leader_commit: message.committed.map(log_id_of),
    })
}

fn entry(record: &Bytes) -> Result<Entry, Status> {
    // A copy: the record is a piece of what was read from the socket, all of which it would keep in memory.
    let record = Bytes::copy_from_slice(record);
    decode_entry(&record).map_err(|damage| Status::data_loss(format!("a log record: {damage}")))
}

pub fn put_append_reply<R: AsyncRuntime>(
    result: &StreamAppendResult<Types<R>>,
) -> v1::PeerAppendReply {
    use v1::peer_append_reply::{Matched, Result as Told};

    let told = match result {
        Ok(last) => Told::Matched(Matched {
            last: last.as_ref().map(put_log_id),
        }),
        Err(StreamAppendError::Conflict(at)) => Told::Conflict(put_log_id(at)),
        Err(StreamAppendError::HigherVote(vote)) => Told::HigherVote(put_vote(vote)),
    };
    v1::PeerAppendReply { result: Some(told) }
}

pub fn append_reply<R: AsyncRuntime>(
    message: v1::PeerAppendReply,
) -> Result<StreamAppendResult<Types<R>>, Status> {
    use v1::peer_append_reply::Result as Told;

    Ok(match message.result.ok_or_else(|| missing("result"))? {
        Told::Matched(matched) => Ok(matched.last.map(log_id_of)),
        Told::Conflict(at) => Err(StreamAppendError::Conflict(log_id_of(at))),
        Told::HigherVote(higher) => Err(StreamAppendError::HigherVote(vote(Some(higher))?)),
    })
}

pub fn put_vote_request<R: AsyncRuntime>(
    request: &VoteRequest<Types<R>>,
    header: v1::PeerHeader,
) -> v1::PeerVoteRequest {
    v1::PeerVoteRequest {
        header: Some(header),
        vote: Some(put_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(put_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn vote_request<R: AsyncRuntime>(
    message: v1::PeerVoteRequest,
) -> Result<VoteRequest<Types<R>>, Status> {
    let mut request = VoteRequest::new(vote(message.vote)?, message.last_log.map(log_id_of));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub fn put_vote_reply<R: AsyncRuntime>(reply: &VoteResponse<Types<R>>) -> v1::PeerVoteReply {
    v1::PeerVoteReply {
        vote: Some(put_vote(&reply.vote)),
        granted: reply.vote_granted,
        last_log: reply.last_log_id.as_ref().map(put_log_id),
    }
}

pub fn vote_reply<R: AsyncRuntime>(
    message: v1::PeerVoteReply,
) -> Result<VoteResponse<Types<R>>, Status> {
    let last_log = message.last_log.map(log_id_of);
    Ok(VoteResponse::new(
        vote(message.vote)?,
        last_log,
        message.granted,
    ))
}

pub fn put_transfer<R: AsyncRuntime>(
    request: &TransferLeaderRequest<Types<R>>,
    header: v1::PeerHeader,
) -> v1::PeerTransferRequest {
    v1::PeerTransferRequest {
        header: Some(header),
        from_leader: Some(put_vote(request.from_leader())),
        to_node: *request.to_node_id(),
        last_log: request.last_log_id().map(put_log_id),
    }
}

pub fn transfer<R: AsyncRuntime>(
    message: v1::PeerTransferRequest,
) -> Result<TransferLeaderRequest<Types<R>>, Status> {
    let from = vote(message.from_leader)?;
    Ok(TransferLeaderRequest::new(
        from,
        message.to_node,
        message.last_log.map(log_id_of),
    ))
}
