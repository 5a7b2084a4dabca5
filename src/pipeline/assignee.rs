//! The representative of a lead (R22): not the last one again, else by chance.

use bson::oid::ObjectId;

/// One of `users`, not `last` if anybody else is left; seeded by the lead, so that two nodes may agree.
pub(super) fn choose(
    users: &[ObjectId],
    last: Option<ObjectId>,
    lead: ObjectId,
) -> Option<ObjectId> {
    let others: Vec<_> = users.iter().filter(|user| Some(**user) != last).collect();
    let eligible = if others.is_empty() {
        users.iter().collect()
    } else {
        others
    };
    let mut seed = [0; 8];
    seed.copy_from_slice(&lead.bytes()[..8]);
    let count = u64::try_from(eligible.len())
        .ok()
        .filter(|count| *count > 0)?;
    let place = usize::try_from(u64::from_be_bytes(seed) % count).ok()?;
    eligible.get(place).map(|user| **user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes([byte; 12])
    }

    #[test]
    fn nobody_gets_two_leads_in_a_row_while_others_are_there() {
        for lead in 0..=255 {
            let chosen = choose(&[id(1), id(2), id(3)], Some(id(2)), id(lead));
            assert!(chosen == Some(id(1)) || chosen == Some(id(3)));
        }
    }

    #[test]
    fn a_single_representative_gets_every_lead() {
        assert_eq!(choose(&[id(1)], Some(id(1)), id(9)), Some(id(1)));
    }

    #[test]
    fn without_representatives_nobody_is_chosen() {
        assert_eq!(choose(&[], None, id(9)), None);
    }
}
