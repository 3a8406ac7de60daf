//! Where a reader goes on whose cursor came from outside. Pure.

/// Where a reader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Behind this number: everything it saw is what we have.
    After(u64),
    /// It saw events that were lost, or of no epoch that we know: it goes on behind `seq` of `epoch` and forgets
    /// what it has past that.
    Reset {
        /// The epoch that began there, which need not be the newest: what follows is told in the epochs it was told in.
        epoch: u64,
        /// The last number that it shares with us.
        seq: u64,
    },
}

/// Where a reader goes on that saw `seq` of `epoch` last, in a log whose newest event is `newest_seq`. Each of `epochs`
/// comes with the last number that was kept of those before it.
#[must_use]
pub fn resume(epochs: &[(u64, u64)], newest_seq: u64, epoch: u64, seq: u64) -> Resume {
    let is_known = epochs.iter().any(|(known, _)| *known == epoch);
    let next = epochs.iter().find(|(known, _)| *known > epoch);
    let shared_seq = match next {
        // Nothing of an epoch that we do not know is shared.
        _ if !is_known => 0,
        Some((_, after_seq)) => *after_seq,
        None => newest_seq,
    };
    if seq <= shared_seq {
        return Resume::After(seq);
    }
    let (epoch, _) = next.or(epochs.last()).copied().unwrap_or((1, 0));
    Resume::Reset {
        epoch,
        seq: shared_seq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_missed_several_power_losses_goes_on_in_the_epoch_after_its_own() {
        let epochs = [(1, 0), (2, 5), (3, 7)];
        let table = [
            ((0, 0), Resume::After(0)),
            ((1, 5), Resume::After(5)),
            ((1, 6), Resume::Reset { epoch: 2, seq: 5 }),
            ((2, 7), Resume::After(7)),
            ((2, 8), Resume::Reset { epoch: 3, seq: 7 }),
            ((3, 9), Resume::After(9)),
            ((3, 10), Resume::Reset { epoch: 3, seq: 9 }),
            ((0, 4), Resume::Reset { epoch: 1, seq: 0 }),
            ((9, 4), Resume::Reset { epoch: 3, seq: 0 }),
        ];
        for ((epoch, seq), then) in table {
            assert_eq!(resume(&epochs, 9, epoch, seq), then, "after {epoch}/{seq}");
        }
    }
}
