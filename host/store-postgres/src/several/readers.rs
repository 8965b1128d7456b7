//! Reads over several databases. Of what is left in a database that its identity has left nothing is seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    AuditFilter, AuditPlace, AuditReader, AuditRow, Client, ClientReader, FlowFilter, FlowReader, FlowRecord,
    FlowState, Head, IdentityReader, IdentityRecord, JournalReader, LateConfirm, LeftRows, LeftWork, LiveFlow,
    MessageReader, OutboxDestination, OutboxRow, SizedJournal, StoreError, StoredJournal, is_last_page, outbox_begin,
    outbox_database,
};

use super::{SeveralDatabases, all};

impl SeveralDatabases {
    /// What each database has, of those that live there.
    fn at_home<T>(&self, found: Vec<Vec<T>>, identity: impl Fn(&T) -> IdentityRow) -> Vec<T> {
        let of_place = |(place, rows): (usize, Vec<T>)| {
            let identity = &identity;
            rows.into_iter().filter(move |row| self.place(identity(row)) == place)
        };
        found.into_iter().enumerate().flat_map(of_place).collect()
    }

    /// A page of the flows of one database, of those that live there.
    async fn list_at(&self, place: usize, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        let (mut filter, limit) = (filter.clone(), filter.limit as usize);
        let mut page: Vec<FlowRecord> = Vec::new();
        loop {
            let found = self.databases[place].list_flows(&filter).await?;
            let (last, is_last) = (found.last().map(|flow| flow.row), found.len() < limit.max(1));
            page.extend(found.into_iter().filter(|flow| self.place(flow.identity) == place));
            page.truncate(limit);
            if is_last || page.len() >= limit {
                return Ok(page);
            }
            filter.before = last;
        }
    }
}

#[async_trait]
impl IdentityReader for SeveralDatabases {
    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.identities())).await?;
        let mut records = self.at_home(found, |record| record.row);
        records.sort_unstable_by_key(|record| record.row);
        Ok(records)
    }

    async fn due(&self, now: i64) -> Result<(Vec<(IdentityRow, i64)>, Option<i64>), StoreError> {
        let found = all(self.databases.iter().map(|database| database.due(now))).await?;
        let next = found.iter().filter_map(|(_, next)| *next).min();
        let mut due = self.at_home(found.into_iter().map(|(due, _)| due).collect(), |(identity, _)| *identity);
        due.sort_unstable_by_key(|(_, at)| *at);
        Ok((due, next))
    }

    async fn left_work(&self, now: i64) -> Result<Vec<LeftWork>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.left_work(now))).await?;
        let mut left = self.at_home(found, |left| left.identity);
        left.sort_unstable_by_key(|left| left.identity);
        Ok(left)
    }

    async fn left_rows(&self, identity: IdentityRow) -> Result<LeftRows, StoreError> {
        self.databases[self.place(identity)].left_rows(identity).await
    }
}

#[async_trait]
impl FlowReader for SeveralDatabases {
    async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.live_flows())).await?;
        let mut flows = self.at_home(found, |flow| flow.identity);
        flows.sort_unstable_by_key(|flow| flow.row);
        Ok(flows)
    }

    async fn live_flows_of(
        &self,
        identity: IdentityRow,
        after: Option<FlowRow>,
        limit: u32,
    ) -> Result<Vec<LiveFlow>, StoreError> {
        self.of(identity).live_flows_of(identity, after, limit).await
    }

    async fn live_counts(&self, identities: &[IdentityRow]) -> Result<Vec<(IdentityRow, u64)>, StoreError> {
        let mut of_place: HashMap<usize, Vec<IdentityRow>> = HashMap::new();
        for identity in identities {
            of_place.entry(self.place(*identity)).or_default().push(*identity);
        }
        let counts = of_place.iter().map(|(place, identities)| self.databases[*place].live_counts(identities));
        let mut counts = all(counts).await?.concat();
        counts.sort_unstable();
        Ok(counts)
    }

    async fn live_states(&self) -> Result<Vec<(FlowState, u64)>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.live_states_of_each())).await?;
        let mut states: BTreeMap<i64, (FlowState, u64)> = BTreeMap::new();
        for (_, state, flows) in self.at_home(found, |(identity, ..)| *identity) {
            states.entry(state as i64).or_insert((state, 0)).1 += flows;
        }
        Ok(states.into_values().collect())
    }

    async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError> {
        match self.locate(&[row]).await?.get(&row) {
            Some(place) => self.databases[*place].flow(row).await,
            None => Ok(None),
        }
    }

    async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError> {
        let mut records = Vec::with_capacity(rows.len());
        for (place, rows) in self.by_place(rows).await? {
            records.extend(self.databases[place].flows(&rows).await?);
        }
        records.sort_unstable_by_key(|record: &FlowRecord| record.row);
        Ok(records)
    }

    async fn starts(&self, rows: &[FlowRow]) -> Result<Vec<(FlowRow, Bytes)>, StoreError> {
        let (mut starts, mut end) = (Vec::with_capacity(rows.len()), None);
        for (place, rows) in self.by_place(rows).await? {
            let page = self.databases[place].starts(&rows).await?;
            let is_last = is_last_page(u32::MAX, page.iter().map(|(_, start)| start.len()));
            // Where one database has more, nothing behind is told of the others either.
            if let Some((last, _)) = page.last().filter(|_| !is_last) {
                end = Some(end.map_or(*last, |end: FlowRow| end.min(*last)));
            }
            starts.extend(page);
        }
        starts.retain(|(row, _)| end.is_none_or(|end| *row <= end));
        starts.sort_unstable_by_key(|(row, _)| *row);
        Ok(starts)
    }

    async fn list_flows(&self, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        if let Some(identity) = filter.identity {
            return self.of(identity).list_flows(filter).await;
        }
        let mut flows = all((0..self.databases.len()).map(|place| self.list_at(place, filter))).await?.concat();
        flows.sort_unstable_by_key(|flow| std::cmp::Reverse(flow.row));
        flows.truncate(filter.limit as usize);
        Ok(flows)
    }
}

#[async_trait]
impl JournalReader for SeveralDatabases {
    async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError> {
        match self.locate(&[row]).await?.get(&row) {
            Some(place) => self.databases[*place].journal(row).await,
            None => Ok(None),
        }
    }

    async fn journal_within(&self, row: FlowRow, most: u64) -> Result<Option<SizedJournal>, StoreError> {
        match self.locate(&[row]).await?.get(&row) {
            Some(place) => self.databases[*place].journal_within(row, most).await,
            None => Ok(None),
        }
    }

    async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError> {
        let (mut found, mut left) = (HashMap::with_capacity(rows.len()), HashSet::new());
        for (place, rows) in self.by_place(rows).await? {
            let heads = self.databases[place].heads(&rows).await?;
            left.extend(rows.into_iter().skip(heads.len()));
            found.extend(heads.into_iter().map(|head| (head.flow, head)));
        }
        let nothing = |flow| Head { flow, last: None, inbox: Vec::new() };
        let told = rows.iter().take_while(|row| !left.contains(row));
        Ok(told.map(|row| found.get(row).cloned().unwrap_or_else(|| nothing(*row))).collect())
    }
}

#[async_trait]
impl MessageReader for SeveralDatabases {
    async fn initiations(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes)>, StoreError> {
        self.of(identity).initiations(identity, after, limit).await
    }

    async fn first_initiations(&self) -> Result<Vec<(IdentityRow, i64)>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.first_initiations())).await?;
        let mut first = self.at_home(found, |(identity, _)| *identity);
        first.sort_unstable();
        Ok(first)
    }

    async fn late_confirms(
        &self,
        identity: IdentityRow,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<LateConfirm>, StoreError> {
        self.of(identity).late_confirms(identity, after, limit).await
    }

    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows = Vec::new();
        for place in outbox_database(after)..self.databases.len() {
            let begin = outbox_begin(place);
            let room = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            let found = self.databases[place].outbox((after - begin).max(0), room).await?;
            let is_last = is_last_page(room, found.iter().map(|row| row.content.body().len()));
            rows.extend(found.into_iter().map(|row| OutboxRow { id: row.id + begin, ..row }));
            if !is_last {
                break;
            }
        }
        Ok(rows)
    }

    async fn oldest_outbox(&self) -> Result<Option<i64>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.oldest_outbox())).await?;
        Ok(found.into_iter().flatten().max())
    }

    async fn outbox_destinations(&self, after: &str, limit: u32) -> Result<Vec<OutboxDestination>, StoreError> {
        let reading = self.databases.iter().map(|database| database.outbox_destinations(after, limit));
        let found = all(reading).await?.into_iter().enumerate();
        let mut destinations: Vec<OutboxDestination> = found
            .flat_map(|(place, found)| {
                let begin = outbox_begin(place);
                found.into_iter().map(move |found| OutboxDestination { first: found.first + begin, ..found })
            })
            .collect();
        destinations.sort_by(|one, other| (&one.destination, one.first).cmp(&(&other.destination, other.first)));
        destinations.dedup_by(|later, earlier| later.destination == earlier.destination);
        destinations.truncate(limit as usize);
        Ok(destinations)
    }

    async fn outbox_to(&self, destination: &str, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let place = outbox_database(after);
        let Some(database) = self.databases.get(place) else { return Ok(Vec::new()) };
        let begin = outbox_begin(place);
        let found = database.outbox_to(destination, after - begin, limit).await?;
        Ok(found.into_iter().map(|row| OutboxRow { id: row.id + begin, ..row }).collect())
    }
}

#[async_trait]
impl ClientReader for SeveralDatabases {
    async fn client(&self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, StoreError> {
        self.of(identity).client(identity, user, client_id).await
    }

    async fn client_uses(&self, user: &str, client_id: &str) -> Result<Vec<(IdentityRow, FlowRow)>, StoreError> {
        let found = all(self.databases.iter().map(|database| database.client_uses(user, client_id))).await?;
        let mut uses = self.at_home(found, |(identity, _)| *identity);
        uses.sort_unstable();
        Ok(uses)
    }

    async fn clients(
        &self,
        identity: IdentityRow,
        user: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Client>, StoreError> {
        self.of(identity).clients(identity, user, after, limit).await
    }
}

#[async_trait]
impl AuditReader for SeveralDatabases {
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError> {
        self.databases[0].audit(filter).await
    }
}
