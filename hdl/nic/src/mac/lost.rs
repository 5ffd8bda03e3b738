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
    /// Frames between arrival and end.
    inside: Reg<Bits<10>>,
    /// Lost, and to be told.
    untold: Reg<Bits<10>>,
    restarting: Reg<Bit>,
}

#[hw]
impl<const ENDS: usize> Logic for LostFrames<ENDS> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.inside, self.untold, self.restarting);
        self.restarting.d.next = self.restart.val();
        let mut inside = self.inside.q.val() + cat::<10>((bits::<9>(0), self.arrived.val()));
        for n in 0..ENDS {
            inside = inside - cat::<10>((bits::<9>(0), self.ended[n].val()));
        }
        let telling = self.untold.q.val().any();
        let mut untold = self.untold.q.val();
        if telling {
            untold = untold - 1;
        }
        if self.cut.val() {
            untold = untold + 1;
        }
        if self.restarting.q.val() && !self.restart.val() {
            untold = untold + inside;
            inside = bits::<10>(0);
        }
        self.inside.d.next = inside;
        self.untold.d.next = untold;
        self.lost.next = telling;
    }
}
