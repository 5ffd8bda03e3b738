//! Where frames go that a reset meets.

use hematite_lang::prelude::*;

/// Counts the frames that a reset dropped: those that have arrived and met none of their `ENDS` ends when it is over,
/// and those that it cut on the wire. So what arrives is, at any time when nothing is on its way, what has ended.
///
/// Any number of events a cycle; `lost` tells one frame a cycle, some cycles after the reset. Up to 1023 frames inside.
#[hw]
pub struct LostFrames<const ENDS: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets all: for power-on, with the counters.
    pub reset: Signal<In, Bit>,
    /// The receive path is dropping what it holds.
    pub restart: Signal<In, Bit>,
    /// A frame has arrived.
    pub arrived: Signal<In, Bit>,
    /// A frame has met its end.
    pub ended: [Signal<In, Bit>; ENDS],
    /// A frame was cut before it had arrived.
    pub cut: Signal<In, Bit>,
    /// Counter event: a reset dropped a frame.
    pub lost: Signal<Out, Bit>,
    /// The inputs come from all over the card: they are taken, then counted, then added.
    arrived_seen: Reg<Bit>,
    ended_seen: [Reg<Bit>; ENDS],
    cut_seen: Reg<Bit>,
    restart_seen: Reg<Bit>,
    arriving: Reg<Bit>,
    ending: Reg<Bits<4>>,
    cutting: Reg<Bit>,
    restarting: Reg<Bit>,
    restarted: Reg<Bit>,
    /// Frames between arrival and end.
    inside: Reg<Bits<10>>,
    /// Lost, and to be told.
    untold: Reg<Bits<10>>,
}

#[hw]
impl<const ENDS: usize> Logic for LostFrames<ENDS> {
    fn update(&mut self) {
        assert!(ENDS < 16);
        registers!(self.clock, self.reset => self.arrived_seen, self.cut_seen, self.restart_seen);
        registers!(self.clock, self.reset => self.arriving, self.ending, self.cutting, self.restarting);
        registers!(self.clock, self.reset => self.inside, self.untold, self.restarted);
        self.arrived_seen.d.next = self.arrived.val();
        self.cut_seen.d.next = self.cut.val();
        self.restart_seen.d.next = self.restart.val();
        self.arriving.d.next = self.arrived_seen.q.val();
        self.cutting.d.next = self.cut_seen.q.val();
        self.restarting.d.next = self.restart_seen.q.val();
        self.restarted.d.next = self.restarting.q.val();
        let mut ending = bits::<4>(0);
        for n in 0..ENDS {
            registers!(self.clock, self.reset => self.ended_seen[n]);
            self.ended_seen[n].d.next = self.ended[n].val();
            ending = ending + cat::<4>((bits::<3>(0), self.ended_seen[n].q.val()));
        }
        self.ending.d.next = ending;

        let arriving = cat::<10>((bits::<9>(0), self.arriving.q.val()));
        let inside = self.inside.q.val() + arriving - self.ending.q.val().resize::<10>();
        let telling = self.untold.q.val().any();
        let cutting = cat::<10>((bits::<9>(0), self.cutting.q.val()));
        let untold = self.untold.q.val() + cutting - cat::<10>((bits::<9>(0), telling));
        if self.restarted.q.val() && !self.restarting.q.val() {
            self.untold.d.next = untold + inside;
            self.inside.d.next = bits::<10>(0);
        } else {
            self.untold.d.next = untold;
            self.inside.d.next = inside;
        }
        self.lost.next = telling;
    }
}
