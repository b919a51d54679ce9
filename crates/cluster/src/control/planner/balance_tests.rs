//! Leaders spread evenly, but not to whom they would stand still with.

use super::super::change::Change;
use super::super::map::ShardId;
use super::tests::{A, B, C, Case, SECOND};
use kvorum_sync::Epoch;

#[test]
fn a_node_that_came_back_leads_nothing_before_it_has_what_it_missed() {
    let mut case = Case::with_shards(&[A, B, C], 6);
    let rounds = |case: &mut Case| {
        for _ in 0..60 {
            case.wait(SECOND);
            for change in case.plan() {
                case.map.apply(&change).unwrap();
            }
            let named: Vec<(ShardId, Epoch)> =
                case.map.shards.iter().filter_map(|(shard, row)| Some((*shard, row.manager()?.0))).collect();
            for (shard, epoch) in named {
                case.map.apply(&Change::Led { shard, epoch }).unwrap();
            }
        }
        case.map.managed().get(&C).copied().unwrap_or_default()
    };
    assert_eq!(rounds(&mut case), 2);
    case.kill(C);
    assert_eq!(rounds(&mut case), 0);
    case.hear_all();
    case.view.behind.insert(C);
    assert_eq!(rounds(&mut case), 0, "what it led would stand still");
    case.view.behind.clear();
    assert_eq!(rounds(&mut case), 2);
}
