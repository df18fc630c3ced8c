import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BackendHealth } from '../../../node/routing/backend-health.ts';
import { Breakers } from '../../../node/routing/breakers.ts';
import { orderCandidates } from '../../../node/routing/candidate.ts';
import { mayUse, rankOf, rankTargets, type TargetState } from '../../../node/routing/federated-order.ts';
import { Selector } from '../../../node/routing/selector.ts';
import { STRATEGY_NAMES } from '../../../node/routing/settings.ts';
import { FIRST_CURSOR, STRATEGIES } from '../../../node/routing/strategies.ts';
import fc from '../../support/fc.ts';
import { fixtureEndpoint, targetOf } from '../../support/first-parts.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { sketched } from '../../support/sketched-candidate.ts';

const STATES = ['running', 'queued', 'cold', 'stopped', 'offline', 'unknown'] as const;
const anyState: fc.Arbitrary<TargetState> = fc.record({
  state: fc.constantFrom(...STATES),
  freeNodes: fc.option(fc.integer({ min: -1, max: 5 })),
});

const rank = (state: TargetState['state'], freeNodes: number | null, preferFreeOverQueued = false): number =>
  rankOf({ state, freeNodes }, { preferFreeOverQueued });

test('F-2 F-16 running comes before queued, then free nodes, then none or unknown, then what does not answer', () => {
  assert.deepEqual(
    [
      rank('running', 0),
      rank('queued', 7),
      rank('cold', 1),
      rank('cold', 0),
      rank('cold', -1),
      rank('cold', null),
      rank('stopped', 9),
      rank('offline', 9),
      rank('unknown', 9),
    ],
    [0, 1, 2, 3, 3, 3, 4, 4, 4],
  );
});

test('F-16 free nodes come before a queue where the owner says so', () => {
  assert.deepEqual([rank('queued', 0, true), rank('cold', 3, true), rank('cold', 0, true)], [2, 1, 3]);
});

test('F-36 a target is for callers of its groups, and for nobody when its groups cannot be understood', () => {
  const endpoint = fixtureEndpoint('sophia', 'm');
  const targets = [targetOf(endpoint, []), targetOf(endpoint, ['hpc', 'staff']), targetOf(endpoint, null)];
  const of = (groups: readonly string[] | null): number[] =>
    rankTargets(targets, {
      stateOf: () => ({ state: 'running', freeNodes: null }),
      groups,
      preferFreeOverQueued: false,
    }).map(({ target }) => targets.indexOf(target));
  assert.deepEqual(of(null), [0, 1]);
  assert.deepEqual(of([]), [0]);
  assert.deepEqual(of(['staff']), [0, 1]);
  assert.deepEqual(of(['other']), [0]);
});

test('an empty list of allowed groups lets everybody in, any other only its members', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), fc.array(fc.string()), (allowed, groups) => {
      assert.equal(mayUse(allowed, groups), allowed.length === 0 || groups.some((group) => allowed.includes(group)));
    }),
  );
});

test('F-2 F-16 whatever the strategy, a target of a lower rank is asked first, and none is lost', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ state: anyState, active: fc.nat(9), priority: fc.integer({ min: -9, max: 9 }) }), {
        minLength: 1,
        maxLength: 8,
      }),
      fc.constantFrom(...STRATEGY_NAMES),
      fc.boolean(),
      (targets, name, preferFreeOverQueued) => {
        const candidates = targets.map(({ state, active, priority }, index) => {
          const own = rankOf(state, { preferFreeOverQueued });
          const base = sketched({ id: `globus:${index}`, active, priority, state: own === 0 ? 'resident' : 'on-disk' });
          return { ...base, rank: own, suspect: own === 4 };
        });
        const strategy = STRATEGIES[name];
        const ordered = orderCandidates(candidates, {
          strategy: (members) => strategy(members, { model: 'm', cursor: FIRST_CURSOR }),
          isUnauthorized: () => false,
        });
        assert.deepEqual(
          ordered.map((candidate) => candidate.rank),
          candidates.map((candidate) => candidate.rank).toSorted((a, b) => a - b),
        );
        assert.deepEqual(new Set(ordered.map(({ backend }) => backend.id)).size, candidates.length);
      },
    ),
  );
});

test('F-16 among targets of one rank the strategy chooses', () => {
  const busy = { ...sketched({ id: 'globus:a', active: 3 }), rank: 0 };
  const idle = { ...sketched({ id: 'globus:b', active: 0 }), rank: 0 };
  const ordered = orderCandidates([busy, idle], {
    strategy: (members) => STRATEGIES['least-loaded'](members, { model: 'm', cursor: FIRST_CURSOR }),
    isUnauthorized: () => false,
  });
  assert.deepEqual(
    ordered.map(({ backend }) => backend.id),
    ['globus:b', 'globus:a'],
  );
});

test('F-16 the record of a request shows the ranks of the targets, and none where there are none', () => {
  const clock = new ManualClock();
  const selector = new Selector({ health: new BackendHealth({ breakers: new Breakers({ clock }), clock }) });
  const question = { model: 'm', boundary: 'public', strategy: 'least-loaded', tried: new Set<string>() } as const;
  const candidates = [sketched({ id: 'peer' }), { ...sketched({ id: 'globus:a', state: 'on-disk' }), rank: 2 }];
  const { records } = selector.choose(candidates, question);
  assert.deepEqual(
    records.map(({ backend, rank }) => [backend, rank]),
    [
      ['peer', undefined],
      ['globus:a', 2],
    ],
  );
  assert.ok(!('rank' in (records[0] ?? {})));
});
