//! From the TAP to the underlay.

use std::io;
use std::net::SocketAddr;

use twill_backends::frame::group::Group;
use twill_backends::frame::path::{Way, way};
use twill_backends::frame::segment::{Chunk, Segments};
use twill_backends::frame::table::Table;
use twill_backends::frame::virtio::Header;
use twill_backends::frame::{Dropped, answer, vxlan};
use twill_backends::mac::Mac;

use super::batch::{Batch, FrameIo, HEADROOM, Message, Piece, Received, SLOT};
use super::counters::{Count, Tally};
use super::moment;
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
    /// When this batch came, and to whom its last frame went.
    moment: u32,
    noted: Option<(Mac, u32)>,
}

impl Egress {
    pub(super) fn new() -> Self {
        Self {
            batch: Batch::new(SLAB, ARENA),
            answers: Batch::new(0, ANSWERS),
            group: None,
            moment: moment::now(),
            noted: None,
        }
    }

    /// One batch. Returns whether there was anything.
    pub(super) fn turn<T: FrameIo, U: FrameIo>(
        &mut self,
        (tap, socket): (&mut T, &mut U),
        table: &Table,
        rules: &Rules,
        tally: &mut Tally,
    ) -> io::Result<bool> {
        self.batch.clear();
        self.answers.clear();
        self.group = None;
        tap.recv(&mut self.batch)?;
        if !self.batch.received.is_empty() {
            self.moment = moment::now();
        }
        for i in 0..self.batch.received.len() {
            let received = self.batch.received[i];
            if let Err(reason) = self.frame(received, table, rules, (socket, tally)) {
                tally.drop(reason);
            }
        }
        self.flush(socket, tally);
        let refused = tap.send(&self.answers);
        tally.add(Count::TapRefused, refused.total());
        Ok(!self.batch.received.is_empty())
    }

    fn frame<U: FrameIo>(
        &mut self,
        received: Received,
        table: &Table,
        rules: &Rules,
        out: (&mut U, &mut Tally),
    ) -> Result<(), Dropped> {
        let Received { start, end, .. } = received;
        let (slab, _) = self.batch.parts();
        let header = slab.get(start - HEADROOM..start).unwrap_or_default();
        let virtio = Header::decode(header).map_err(|_| Dropped::BadOffload)?;
        let frame = slab.get_mut(start..end).filter(|_| !received.cut).ok_or(Dropped::Truncated)?;
        let (peer, layout) = match way(table, frame)? {
            Way::To(peer, layout) => (peer, layout),
            Way::Ask(layout) => {
                self.reply(start, end, |frame, out| answer::neighbour(table, frame, &layout, out))?;
                out.1.add(Count::Answered, 1);
                return Ok(());
            }
        };
        // Frames to one peer come in a row: it is noted once.
        let noted = Some((peer.mac, self.moment));
        if self.noted != noted {
            table.sent_to(peer.mac.0, self.moment);
            self.noted = noted;
        }
        let segments = Segments::new(frame, &layout, &virtio, rules.vxlan.header())?;
        if segments.packet_len(&layout) > peer.mtu as usize {
            let mtu = peer.mtu;
            self.reply(start, end, |frame, out| answer::too_big(frame, &layout, mtu, out))?;
            out.1.add(Count::Told, 1);
            return Ok(());
        }
        let to = SocketAddr::new(peer.addr, rules.port);
        self.send(segments, (start, end), to, out);
        Ok(())
    }

    /// Adds the datagrams of a frame to the messages.
    fn send<U: FrameIo>(
        &mut self,
        mut segments: Segments,
        (start, end): (usize, usize),
        to: SocketAddr,
        (socket, tally): (&mut U, &mut Tally),
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
                self.flush(socket, tally);
                if self.batch.room() < segments.arena_len() {
                    tally.drop(Dropped::BadOffload);
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
    fn room(&self, segments: &Segments, to: SocketAddr) -> usize {
        let last = self.batch.messages.last().filter(|last| (last.to, last.pieces_each) == (to, 2));
        match last.and(self.group).map_or(0, |group| group.room(segments.segment_len())) {
            0 => usize::MAX,
            count => count * segments.headers_len(),
        }
    }

    /// Makes a message for a chunk whose pieces come next, or lets it join the last one.
    fn begin_or_join(&mut self, chunk: &Chunk, to: SocketAddr, pieces_each: u16) {
        let segment = |group: &Group| if group.count() > 1 { group.segment_len() as u16 } else { 0 };
        if let (Some(group), Some(last)) = (&mut self.group, self.batch.messages.last_mut())
            && (last.to, last.pieces_each) == (to, pieces_each)
            && group.add(chunk)
        {
            last.segment = segment(group);
            return;
        }
        let group = Group::new(chunk);
        let first = self.batch.pieces.len() as u32;
        self.batch.messages.push(Message { to, segment: segment(&group), pieces_each, first, last: first });
        self.group = Some(group);
    }

    fn flush<U: FrameIo>(&mut self, socket: &mut U, tally: &mut Tally) {
        if !self.batch.messages.is_empty() {
            let refused = socket.send(&self.batch);
            let frames: u64 = self.batch.messages.iter().map(Message::count).sum();
            tally.add(Count::Sent, frames.saturating_sub(refused.total()));
            tally.refused_by_underlay(refused);
        }
        self.batch.sent();
        self.group = None;
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
