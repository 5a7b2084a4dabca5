//! Deliveries and where they stand, newest first, for people.

use super::{Delivery, TABLE};
use crate::store::{Snapshot, StoreError, codec};

/// Deliveries looked at in one listing; a filter that matches rarely is continued from where it stopped.
const SCAN_MAX: usize = 20_000;

/// Which deliveries to list; everything given has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A channel's name.
    pub channel: Option<String>,
    /// A state's name.
    pub state: Option<String>,
    /// Not made before this time, milliseconds since the epoch.
    pub since: Option<i64>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Newest first, with their numbers.
    pub deliveries: Vec<(u64, Delivery)>,
    /// Where to go on, if there may be more: list those before this number.
    pub next: Option<u64>,
}

impl Snapshot {
    /// Deliveries that match, newest first, from those before `before`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list_deliveries(
        &self,
        filter: &Filter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let newest_first = self.deliveries.range(..before.unwrap_or(u64::MAX))?.rev();
        for (looked_at, entry) in newest_first.enumerate() {
            let (number, record) = entry?;
            let number = number.value();
            if page.deliveries.len() == limit || looked_at == SCAN_MAX {
                page.next = Some(number + 1);
                break;
            }
            // A damaged record says nothing that could be listed.
            let Ok(delivery) = codec::decode::<Delivery>(TABLE, record.value()) else {
                continue;
            };
            if filter.wants(&delivery) {
                page.deliveries.push((number, delivery));
            }
        }
        Ok(page)
    }
}

impl Filter {
    /// The filter as a query's names and values.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("channel", self.channel.clone()),
            ("state", self.state.clone()),
            ("since", self.since.map(|ms| ms.to_string())),
        ];
        let present = |(name, value): (&'static str, Option<String>)| Some((name, value?));
        fields.into_iter().filter_map(present).collect()
    }

    fn wants(&self, delivery: &Delivery) -> bool {
        let same = |wanted: &Option<String>, is| wanted.as_ref().is_none_or(|wanted| wanted == is);
        same(&self.channel, delivery.channel.name())
            && same(&self.state, delivery.state.name())
            && self
                .since
                .is_none_or(|since| delivery.created_at_ms >= since)
    }
}
