//! Memory for sorts that go on on disk.

use std::fmt;

use datafusion::error::Result;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation,
};

/// Keeps apart what sorts fill with rows, which they can put on disk, and what they need to merge these rows, which they
/// cannot. In one pool with both, rows take the memory without which no sort can put them on disk: it then fails.
#[derive(Debug)]
pub(crate) struct SortPool {
    rows: FairSpillPool,
    merging: GreedyMemoryPool,
}

impl SortPool {
    /// Of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        // A batch counts twice while it is sorted; the copy of its keys by which it is merged takes from 0.7 (40 bytes a row) to
        // once as much again (17 bytes), and every batch needs one.
        let rows = bytes / 5 * 2;
        Self { rows: FairSpillPool::new(rows), merging: GreedyMemoryPool::new(bytes - rows) }
    }

    fn of(&self, consumer: &MemoryConsumer) -> &dyn MemoryPool {
        if consumer.can_spill() { &self.rows } else { &self.merging }
    }
}

impl MemoryPool for SortPool {
    fn name(&self) -> &str {
        "sorts"
    }
    fn register(&self, consumer: &MemoryConsumer) {
        self.of(consumer).register(consumer);
    }
    fn unregister(&self, consumer: &MemoryConsumer) {
        self.of(consumer).unregister(consumer);
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.of(reservation.consumer()).grow(reservation, additional);
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.of(reservation.consumer()).shrink(reservation, shrink);
    }
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.of(reservation.consumer()).try_grow(reservation, additional)
    }
    fn reserved(&self) -> usize {
        self.rows.reserved() + self.merging.reserved()
    }
}

impl fmt::Display for SortPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} for rows, {} for merging them", self.rows, self.merging)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rows_leave_memory_to_merge_them() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SortPool::new(1000));
        let rows = [1, 2].map(|_| MemoryConsumer::new("rows").with_can_spill(true).register(&pool));
        rows.iter().for_each(|rows| rows.try_grow(200).unwrap());
        assert!(rows[0].try_grow(1).is_err());
        let merge = MemoryConsumer::new("merge").register(&pool);
        merge.try_grow(600).unwrap();
        assert!(merge.try_grow(1).is_err());
        assert_eq!(pool.reserved(), 1000);
        drop(rows);
        merge.shrink(100);
        assert_eq!(pool.reserved(), 500);
    }
}
