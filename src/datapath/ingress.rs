//! From the underlay to the TAP.

use std::io;
use std::ops::Range;

use twill_backends::frame::coalesce::Coalescer;
use twill_backends::frame::parse::Layout;
use twill_backends::frame::path::admit;
use twill_backends::frame::segment::Segments;
use twill_backends::frame::{Dropped, undone, virtio, vxlan};

use super::batch::{Batch, FrameIo, HEADROOM, Piece, Received, SLOT};
use super::books::Books;
use super::counters::Count;
use super::pump::Rules;

/// How many receives fit a batch.
const RECEIVES: usize = 16;
/// Room for the virtio headers of a batch, in bytes.
const ARENA: usize = 64 * 1024;
/// How many frames are joined at once, at first.
const FRAMES: usize = 1024;

/// This direction's buffers.
#[derive(Debug)]
pub(super) struct Ingress {
    batch: Batch,
    /// `None` where the TAP takes whole frames only.
    coalescer: Option<Coalescer>,
}

impl Ingress {
    /// With `offload` the TAP takes large TCP frames, with `datagrams` large UDP frames as well.
    pub(super) fn new(offload: bool, datagrams: bool) -> Self {
        Self {
            batch: Batch::new(RECEIVES * SLOT, ARENA),
            coalescer: offload.then(|| Coalescer::new(FRAMES, datagrams)),
        }
    }

    /// One batch. Returns whether there was anything.
    pub(super) fn turn<T: FrameIo, U: FrameIo>(
        &mut self,
        (tap, socket): (&mut T, &mut U),
        rules: &Rules,
        books: &mut Books<'_>,
    ) -> io::Result<bool> {
        self.batch.clear();
        socket.recv(&mut self.batch)?;
        if self.batch.received.is_empty() {
            return Ok(false);
        }
        for i in 0..self.batch.received.len() {
            let received = self.batch.received[i];
            self.datagrams(received, rules, (tap, books));
        }
        self.join(tap, books);
        self.flush(tap, books);
        Ok(true)
    }

    /// Lets in what may come in of one receive.
    fn datagrams<T: FrameIo>(
        &mut self,
        received: Received,
        rules: &Rules,
        (tap, books): (&mut T, &mut Books<'_>),
    ) {
        let Received { mut start, end, from, segment, cut } = received;
        if cut || start == end {
            books.drop_from(from, Dropped::Truncated);
            return;
        }
        let table = books.peers.table();
        let step = if segment == 0 { end - start } else { segment };
        while start < end {
            let next = (start + step).min(end);
            let datagram = self.batch.bytes.get(start..next).unwrap_or_default();
            match admit(table, rules.vxlan, rules.check_source, from, datagram) {
                Ok((peer, frame, layout)) => {
                    let large = layout.packet_len() > peer.mtu as usize && undone::is_left(frame, &layout);
                    let header = if large {
                        undone::uncut(frame, &layout, peer.mtu.min(books.peers.pods()))
                    } else {
                        None
                    };
                    let frame = next - frame.len()..next;
                    if header.is_none() && large {
                        books.drop_of(table.place(peer), Dropped::BadOffload);
                    } else {
                        books.received(peer, datagram.len());
                    }
                    match header {
                        Some(header) => self.large(frame, &layout, &header, (tap, books)),
                        None if large => {}
                        None => self.small(frame, &layout, (tap, books)),
                    }
                }
                Err(reason) => books.drop_from(from, reason),
            }
            start = next;
        }
    }

    /// Takes a frame that its sender left to be cut: as it is where the TAP takes large frames, else cut here.
    fn large<T: FrameIo>(
        &mut self,
        frame: Range<usize>,
        layout: &Layout,
        header: &virtio::Header,
        (tap, books): (&mut T, &mut Books<'_>),
    ) {
        // What came before it goes first.
        self.join(tap, books);
        if self.coalescer.is_none() {
            self.cut(frame, layout, header, (tap, books));
            return;
        }
        if self.batch.room() < HEADROOM {
            self.flush(tap, books);
        }
        if let Some(header) = self.batch.put(&header.encode()[..virtio::LEN]) {
            self.batch.frame([header, Piece::new(frame.start, frame.end)]);
        }
    }

    fn cut<T: FrameIo>(
        &mut self,
        frame: Range<usize>,
        layout: &Layout,
        header: &virtio::Header,
        (tap, books): (&mut T, &mut Books<'_>),
    ) {
        self.flush(tap, books);
        let Some(none) = self.batch.put(&[0; HEADROOM]) else { return };
        let (slab, _) = self.batch.parts();
        let Ok(mut segments) = Segments::new(&mut slab[frame.clone()], layout, header, [0; vxlan::LEN])
        else {
            books.drop(Dropped::BadOffload);
            return;
        };
        while !segments.is_done() {
            let (slab, arena) = self.batch.parts();
            let Some(chunk) = segments.next_chunk(&slab[frame.clone()], arena) else {
                if self.batch.messages.is_empty() {
                    break;
                }
                // Room for the next ones; what was put first stays where it was.
                self.flush(tap, books);
                self.batch.put(&[0; HEADROOM]);
                continue;
            };
            let arena = self.batch.take(chunk.arena_len()).start as usize;
            for segment in 0..chunk.count {
                let (headers, payload) = (chunk.headers(segment), chunk.payload(segment));
                let headers = Piece::new(arena + headers.start + vxlan::LEN, arena + headers.end);
                let payload = Piece::new(frame.start + payload.start, frame.start + payload.end);
                self.batch.frame([none, headers, payload]);
            }
        }
        self.flush(tap, books);
    }

    /// Makes messages of what was joined.
    fn join<T: FrameIo>(&mut self, tap: &mut T, books: &mut Books<'_>) {
        let Some(mut coalescer) = self.coalescer.take() else { return };
        coalescer.finish(self.batch.slab());
        for unit in coalescer.units() {
            let header = &unit.virtio()[..virtio::LEN];
            if self.batch.room() < header.len() {
                self.flush(tap, books);
            }
            let Some(header) = self.batch.put(header) else { continue };
            let pieces = std::iter::once(unit.head()).chain(coalescer.tail(unit));
            let pieces = pieces.map(|range| Piece::new(range.start, range.end));
            self.batch.frame(std::iter::once(header).chain(pieces));
        }
        coalescer.clear();
        self.coalescer = Some(coalescer);
    }

    /// Takes a frame of wire size.
    fn small<T: FrameIo>(
        &mut self,
        frame: Range<usize>,
        layout: &Layout,
        (tap, books): (&mut T, &mut Books<'_>),
    ) {
        if let Some(bytes) = self.batch.bytes.get_mut(frame.clone()) {
            undone::finish(bytes, layout);
        }
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.push(&self.batch.bytes, frame, layout);
            return;
        }
        if self.batch.room() < HEADROOM {
            self.flush(tap, books);
        }
        if let Some(header) = self.batch.put(&[0; HEADROOM]) {
            self.batch.frame([header, Piece::new(frame.start, frame.end)]);
        }
    }

    fn flush<T: FrameIo>(&mut self, tap: &mut T, books: &mut Books<'_>) {
        let refused = tap.send(&self.batch).total();
        books.add(Count::Delivered, self.batch.messages.len() as u64 - refused);
        books.add(Count::TapRefused, refused);
        self.batch.sent();
    }
}
