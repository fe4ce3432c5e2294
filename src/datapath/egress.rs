//! From the TAP to the underlay.

use std::io;
use std::net::SocketAddr;

use twill_backends::frame::group::Group;
use twill_backends::frame::path::{Way, way};
use twill_backends::frame::segment::{Chunk, Segments};
use twill_backends::frame::virtio::Header;
use twill_backends::frame::{Dropped, answer, vxlan};

use super::batch::{Batch, FrameIo, HEADROOM, Message, Piece, Received, Refused, SLOT};
use super::books::Books;
use super::counters::Count;
use super::moment;
use super::peers::Amount;
use super::pump::Rules;

/// Room for a batch of frames, in bytes.
const SLAB: usize = 16 * SLOT;
/// Room for the headers of a batch.
const ARENA: usize = 512 * 1024;
/// Room for answers to a batch.
const ANSWERS: usize = 32 * (HEADROOM + answer::MAX_LEN);

/// This direction's buffers.
#[derive(Debug)]
pub(super) struct Egress {
    batch: Batch,
    /// What goes back into the TAP.
    answers: Batch,
    /// The message under construction: the last one of the batch.
    group: Option<Group>,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy)]
struct To {
    addr: SocketAddr,
    /// The place of the peer.
    peer: u32,
}

impl Egress {
    pub(super) fn new() -> Self {
        Self { batch: Batch::new(SLAB, ARENA), answers: Batch::new(0, ANSWERS), group: None }
    }

    /// One batch. Returns whether there was anything.
    pub(super) fn turn<T: FrameIo, U: FrameIo>(
        &mut self,
        (tap, socket): (&mut T, &mut U),
        rules: &Rules,
        books: &mut Books<'_>,
    ) -> io::Result<bool> {
        self.batch.clear();
        self.answers.clear();
        self.group = None;
        tap.recv(&mut self.batch)?;
        if !self.batch.received.is_empty() {
            books.begin(moment::now());
        }
        for i in 0..self.batch.received.len() {
            let received = self.batch.received[i];
            if let Err(reason) = self.frame(received, rules, (socket, books)) {
                books.drop(reason);
            }
        }
        self.flush(socket, books);
        let refused = tap.send(&self.answers);
        books.add(Count::TapRefused, refused.total());
        Ok(!self.batch.received.is_empty())
    }

    /// # Errors
    /// Why it goes to nobody. What is wrong with one to a peer is noted.
    fn frame<U: FrameIo>(
        &mut self,
        received: Received,
        rules: &Rules,
        (socket, books): (&mut U, &mut Books<'_>),
    ) -> Result<(), Dropped> {
        let Received { start, end, .. } = received;
        let (slab, _) = self.batch.parts();
        let header = slab.get(start - HEADROOM..start).unwrap_or_default();
        let virtio = Header::decode(header).map_err(|_| Dropped::BadOffload)?;
        let frame = slab.get_mut(start..end).filter(|_| !received.cut).ok_or(Dropped::Truncated)?;
        let table = books.peers.table();
        let (peer, layout) = match way(table, frame)? {
            Way::To(peer, layout) => (peer, layout),
            Way::Ask(layout) => {
                self.reply(start, end, |frame, out| answer::neighbour(table, frame, &layout, out))?;
                books.add(Count::Answered, 1);
                return Ok(());
            }
        };
        let place = table.place(peer);
        match Segments::new(frame, &layout, &virtio, rules.vxlan.header()) {
            Ok(segments) if segments.packet_len(&layout) > peer.mtu as usize => {
                let mtu = peer.mtu;
                match self.reply(start, end, |frame, out| answer::too_big(frame, &layout, mtu, out)) {
                    Ok(()) => books.tell(place),
                    Err(reason) => books.drop_of(place, reason),
                }
            }
            Ok(segments) => {
                let to = To { addr: SocketAddr::new(peer.addr, rules.port), peer: place as u32 };
                self.send(segments, (start, end), to, (socket, books));
            }
            Err(reason) => books.drop_of(place, reason),
        }
        Ok(())
    }

    /// Adds the datagrams of a frame to the messages.
    fn send<U: FrameIo>(
        &mut self,
        mut segments: Segments,
        (start, end): (usize, usize),
        to: To,
        (socket, books): (&mut U, &mut Books<'_>),
    ) {
        while !segments.is_done() {
            let whole = segments.is_whole();
            let most = self.room(&segments, to);
            let (slab, arena) = self.batch.parts();
            let chunk = if whole {
                // The VXLAN header takes the place of the virtio header.
                let Some(bytes) = slab.get_mut(start - vxlan::LEN..end) else { return };
                let (header, frame) = bytes.split_at_mut(vxlan::LEN);
                segments.next_chunk(frame, header)
            } else if arena.len() < segments.arena_len() {
                self.flush(socket, books);
                if self.batch.room() < segments.arena_len() {
                    books.drop_of(to.peer as usize, Dropped::BadOffload);
                    return;
                }
                continue;
            } else {
                let most = most.min(arena.len());
                segments.next_chunk(slab.get(start..end).unwrap_or_default(), &mut arena[..most])
            };
            let Some(chunk) = chunk else { return };
            self.begin_or_join(&chunk, to, if whole { 1 } else { 2 });
            if whole {
                self.batch.pieces.push(Piece::new(start - vxlan::LEN, end));
            } else {
                let arena = self.batch.take(chunk.arena_len()).start as usize;
                for segment in 0..chunk.count {
                    let (headers, payload) = (chunk.headers(segment), chunk.payload(segment));
                    let headers = Piece::new(arena + headers.start, arena + headers.end);
                    let payload = Piece::new(start + payload.start, start + payload.end);
                    self.batch.pieces.extend([headers, payload]);
                }
            }
            if let Some(message) = self.batch.messages.last_mut() {
                message.last = self.batch.pieces.len() as u32;
            }
        }
    }

    /// The bytes of headers that the next chunk may have. What is left of a frame that one message does not hold begins
    /// the next one, which the next frame is to fill.
    fn room(&self, segments: &Segments, to: To) -> usize {
        let last = self.batch.messages.last().filter(|last| last.peer == to.peer && last.pieces_each == 2);
        match last.and(self.group).map_or(0, |group| group.room(segments.segment_len())) {
            0 => usize::MAX,
            count => count * segments.headers_len(),
        }
    }

    /// Makes a message for a chunk whose pieces come next, or lets it join the last one.
    fn begin_or_join(&mut self, chunk: &Chunk, to: To, pieces_each: u16) {
        let segment = |group: &Group| if group.count() > 1 { group.segment_len() as u16 } else { 0 };
        if let (Some(group), Some(last)) = (&mut self.group, self.batch.messages.last_mut())
            && (last.peer, last.pieces_each) == (to.peer, pieces_each)
            && group.add(chunk)
        {
            last.segment = segment(group);
            return;
        }
        let group = Group::new(chunk);
        let first = self.batch.pieces.len() as u32;
        let (To { addr: to, peer }, segment) = (to, segment(&group));
        self.batch.messages.push(Message { to, peer, segment, pieces_each, first, last: first });
        self.group = Some(group);
    }

    fn flush<U: FrameIo>(&mut self, socket: &mut U, books: &mut Books<'_>) {
        if !self.batch.messages.is_empty() {
            let refused = socket.send(&self.batch);
            let frames: u64 = self.batch.messages.iter().map(Message::count).sum();
            books.add(Count::Sent, frames.saturating_sub(refused.total()));
            books.tally.refused_by_underlay(refused);
            self.note(socket.refused(), books);
        }
        self.batch.sent();
        self.group = None;
    }

    /// Notes of each peer what was sent to it, and what of that was refused.
    fn note(&self, refused: &[(Message, Refused)], books: &mut Books<'_>) {
        let mut refused = refused.iter().peekable();
        for message in &self.batch.messages {
            let mut sent = Amount::of(message.count(), self.batch.len_of(message));
            while let Some((part, why)) = refused.next_if(|(part, _)| part.first < message.last) {
                sent -= Amount::of(part.count(), self.batch.len_of(part));
                books.refused(message.peer as usize, *why);
            }
            books.sent(message.peer as usize, message.to.ip(), sent);
        }
    }

    /// Has an answer to a frame written.
    fn reply(
        &mut self,
        start: usize,
        end: usize,
        write: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, Dropped>,
    ) -> Result<(), Dropped> {
        let frame = self.batch.bytes.get(start..end).unwrap_or_default();
        let virtio = self.answers.put(&[0; HEADROOM]).ok_or(Dropped::NoNeighbour)?;
        let (_, out) = self.answers.parts();
        let len = write(frame, out)?;
        let answer = self.answers.take(len);
        self.answers.frame([virtio, answer]);
        Ok(())
    }
}
