//! The deal of a lead (R24): only where pipeline, stage and `create_deal` are all there.

use bson::raw::cstr;
use bson::{Bson, DateTime, RawBson, RawDocumentBuf};

use super::prepare::Draft;
use crate::model::{Campaign, Person};

pub(super) fn body(draft: &Draft, node: &str) -> Option<RawDocumentBuf> {
    let Campaign {
        pipeline_id,
        stage_id,
        create_deal: true,
        ..
    } = &*draft.campaign
    else {
        return None;
    };
    let (pipeline_id, stage_id) = (raw(pipeline_id.as_ref()?)?, raw(stage_id.as_ref()?)?);
    let at = DateTime::from_millis(draft.arrived_at_ms);
    let mut deal = RawDocumentBuf::new();
    deal.append(cstr!("account_id"), draft.campaign.account_id);
    if let Some(owner) = draft.campaign.owner.as_ref().and_then(raw) {
        deal.append(cstr!("owner"), owner);
    }
    deal.append(cstr!("pipeline_id"), pipeline_id);
    deal.append(cstr!("stage_id"), stage_id);
    deal.append(cstr!("name"), name(&draft.person, &draft.campaign));
    deal.append(cstr!("source"), "inbound");
    deal.append(cstr!("value"), raw(&draft.campaign.deal_value)?);
    deal.append(cstr!("currency"), draft.campaign.currency.as_str());
    deal.append(cstr!("created_at"), at);
    deal.append(cstr!("updated_at"), at);
    deal.append(cstr!("node"), node);
    Some(deal)
}

/// Name, else the e-mail's local part, else the campaign's name and "lead" (`generateDealName`).
fn name(person: &Person, campaign: &Campaign) -> String {
    let local_part = || {
        person
            .email
            .as_ref()?
            .rsplit_once('@')
            .map(|(local, _)| local.to_owned())
    };
    person
        .name
        .clone()
        .or_else(local_part)
        .unwrap_or_else(|| format!("{} lead", campaign.name))
}

pub(super) fn raw(value: &Bson) -> Option<RawBson> {
    RawBson::try_from(value.clone()).ok()
}
