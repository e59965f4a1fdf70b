//! The conversation list of a user (P10): which are theirs and which come first, before anything of them is read.

use std::collections::BTreeSet;

use connector_ports::log::Offset;
use rusqlite::Connection;

use super::ModelError;
use super::cursor::Place;
use super::sqlite::{messages, streams};

/// The streams of a user, whether each is linked to others, and where its last message stands. One step of an index per stream, however many
/// messages there are.
const MINE: &str = "WITH RECURSIVE wrote(stream) AS (
        SELECT MIN(stream) FROM messages WHERE organization = ?1 AND user_id = ?2
        UNION ALL SELECT (SELECT MIN(stream) FROM messages WHERE organization = ?1 AND user_id = ?2 AND stream > wrote.stream)
            FROM wrote WHERE stream IS NOT NULL),
    mine(stream) AS (
        SELECT conversation FROM contacts WHERE organization = ?1 AND user_id = ?2
        UNION SELECT stream FROM wrote WHERE stream IS NOT NULL)
    SELECT mine.stream, c.canonical <> c.stream OR EXISTS (SELECT 1 FROM conversations a
            WHERE a.organization = ?1 AND a.canonical = mine.stream AND a.stream <> mine.stream),
        last.recorded_at, last.ordered_at, last.partition, last.position
    FROM mine CROSS JOIN conversations c ON c.organization = ?1 AND c.stream = mine.stream
    LEFT JOIN messages last ON last.organization = ?1 AND last.id = (SELECT m.id FROM messages m
        WHERE m.organization = ?1 AND m.stream = mine.stream
        ORDER BY m.ordered_at DESC, m.partition DESC, m.position DESC LIMIT 1)
    ORDER BY mine.stream";

/// When the last message of a conversation was written down, by our own clock (what WhatsApp's times say would keep a conversation at the top
/// or at the bottom), and where it stands.
type Last = Option<(i64, Place)>;

/// The streams of a user's conversations, the canonical one of each first: the `limit` conversations whose last message was written down last.
pub(super) fn latest(
    connection: &Connection,
    organization: &str,
    user: &str,
    limit: usize,
) -> Result<Vec<Vec<String>>, ModelError> {
    let mut statement = connection.prepare_cached(MINE)?;
    let rows = statement.query_map([organization, user], |row| {
        let last = match row.get::<_, Option<i64>>(2)? {
            Some(recorded_at) => {
                let place = Place { ordered_at: row.get(3)?, partition: row.get(4)?, offset: Offset(row.get(5)?) };
                Some((recorded_at, place))
            }
            None => None,
        };
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, last))
    })?;
    let mut seen = BTreeSet::new();
    let mut found: Vec<(Last, Vec<String>)> = Vec::new();
    for row in rows {
        let (stream, linked, last) = row?;
        let of_it = if linked { streams(connection, organization, &stream)? } else { vec![stream] };
        if !of_it.first().is_some_and(|canonical| seen.insert(canonical.clone())) {
            continue;
        }
        let last = match linked {
            true => {
                messages(connection, organization, &of_it, None, 1)?.pop().map(|last| (last.recorded_at, last.place))
            }
            false => last,
        };
        found.push((last, of_it));
    }
    found.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
    found.truncate(limit);
    Ok(found.into_iter().map(|(_, streams)| streams).collect())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::model::sqlite::SCHEMA;

    fn with(conversations: usize, messages: usize) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&format!("BEGIN; {SCHEMA}")).unwrap();
        for n in 0..conversations {
            let stream = format!("s{n:05}");
            db.execute(
                "INSERT INTO conversations (organization, stream, canonical, fold) VALUES ('o', ?1, ?1, '{}')",
                [&stream],
            )
            .unwrap();
            db.execute("INSERT INTO contacts VALUES ('o', 'u', ?1, ?1, '{}')", [&stream]).unwrap();
            for m in 0..messages {
                let at = m * conversations + n;
                db.execute(
                    "INSERT INTO messages VALUES ('o', ?1, ?2, 'outbound', 'text', NULL, NULL, 0, 'u', ?3, NULL, NULL, ?3, ?3, 0, ?3)",
                    rusqlite::params![format!("m{at}"), stream, i64::try_from(at).unwrap()],
                )
                .unwrap();
            }
        }
        db.execute_batch("COMMIT").unwrap();
        db
    }

    #[test]
    fn no_table_is_read_through_for_a_list() {
        let db = with(3, 1);
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {MINE}")).unwrap();
        let plan: Vec<String> =
            statement.query_map(["o", "u"], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        for table in ["messages", "contacts", "conversations", "c", "m", "a", "last"] {
            let scan = |step: &String| *step == format!("SCAN {table}") || step.starts_with(&format!("SCAN {table} "));
            assert!(!plan.iter().any(scan), "{plan:#?}");
        }
        assert!(plan.iter().any(|step| step.contains("messages_by_stream")), "{plan:#?}");
    }

    #[test]
    fn a_list_costs_steps_by_its_conversations_and_not_by_their_messages() {
        let steps = |db: &Connection| {
            let mut statement = db.prepare(MINE).unwrap();
            let rows = statement.query_map(["o", "u"], |_| Ok(())).unwrap().count();
            (rows, statement.get_status(StatementStatus::VmStep))
        };
        let (few, many) = (steps(&with(50, 1)), steps(&with(50, 100)));
        assert_eq!((few.0, many.0), (50, 50));
        assert!(many.1 < 2 * few.1, "{} steps for 50 messages, {} for 5000", few.1, many.1);
    }

    #[test]
    fn the_conversations_written_in_last_come_first() {
        let db = with(30, 3);
        let found = latest(&db, "o", "u", 3).unwrap();
        assert_eq!(found, [["s00029"], ["s00028"], ["s00027"]]);
        assert_eq!(latest(&db, "o", "u", 1000).unwrap().len(), 30);
        assert!(latest(&db, "o", "nobody", 10).unwrap().is_empty());
        assert!(latest(&db, "other", "u", 10).unwrap().is_empty());
    }
}
