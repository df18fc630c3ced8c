import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STRATEGY_NAMES, type StrategyName } from '../../../node/routing/settings.ts';
import { type Cursor, EXPLORE_EVERY, FIRST_CURSOR, STRATEGIES } from '../../../node/routing/strategies.ts';
import fc from '../../support/fc.ts';
import { type Sketch, sketched } from '../../support/sketched-candidate.ts';

const order = (name: StrategyName, sketches: readonly Sketch[], cursor: Cursor = FIRST_CURSOR): string[] =>
  STRATEGIES[name](sketches.map(sketched), { model: 'm', cursor }).map(({ backend }) => backend.id);

test('D-10 there are exactly four strategies, by these names', () => {
  assert.deepEqual(STRATEGY_NAMES, ['priority', 'round-robin', 'least-loaded', 'fastest']);
  assert.deepEqual(Object.keys(STRATEGIES), [...STRATEGY_NAMES]);
});

test('D-11 priority prefers the higher number, then fewer of ours in flight, then whose turn it is', () => {
  const sketches: Sketch[] = [
    { id: 'low', priority: -5 },
    { id: 'busy', priority: 5, active: 2 },
    { id: 'recent', priority: 5, asked: 9 },
    { id: 'rested', priority: 5, asked: 3 },
    { id: 'plain' },
  ];
  assert.deepEqual(order('priority', sketches), ['rested', 'recent', 'busy', 'plain', 'low']);
});

test('D-12 round-robin goes round in the order of fingerprints, from the one after the last chosen', () => {
  const sketches: Sketch[] = [{ id: 'c' }, { id: 'a' }, { id: 'b' }];
  assert.deepEqual(order('round-robin', sketches), ['a', 'b', 'c']);
  assert.deepEqual(order('round-robin', sketches, { choices: 1, last: 'a' }), ['b', 'c', 'a']);
  assert.deepEqual(order('round-robin', sketches, { choices: 3, last: 'c' }), ['a', 'b', 'c']);
  assert.deepEqual(order('round-robin', sketches, { choices: 4, last: 'bb' }), ['c', 'a', 'b'], 'the last one left');
});

test('D-12 in any course of rounds, whoever is passed over does not give its turns to a neighbour', () => {
  const rounds = fc.record({
    nodes: fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 2, maxLength: 8 }),
    skip: fc.nat(7),
  });
  fc.assert(
    fc.property(rounds, ({ nodes, skip }) => {
      const skipped = nodes[skip % nodes.length];
      const shares = new Map<string, number>();
      let cursor = FIRST_CURSOR;
      for (let i = 0; i < (nodes.length - 1) * 5; i++) {
        const chosen = order(
          'round-robin',
          nodes.map((id) => ({ id })),
          cursor,
        ).find((id) => id !== skipped);
        assert.ok(chosen !== undefined);
        shares.set(chosen, (shares.get(chosen) ?? 0) + 1);
        cursor = { choices: cursor.choices + 1, last: chosen };
      }
      assert.deepEqual(new Set(shares.values()), new Set([5]));
    }),
  );
});

test('D-13 least-loaded takes the fewest requests for its slots, whether we sent them or the peer reports them', () => {
  const sketches: Sketch[] = [
    { id: 'busy', reported: 3 },
    { id: 'ours', active: 2 },
    { id: 'wide', active: 2, slots: 16 },
    { id: 'idle' },
  ];
  assert.deepEqual(order('least-loaded', sketches), ['idle', 'wide', 'ours', 'busy']);
});

test('D-13 idle peers take turns, and a peer that fails fast does not look idle', () => {
  const sketches: Sketch[] = [
    { id: 'recent', asked: 9 },
    { id: 'rested', asked: 2 },
    { id: 'failing', penalty: 1 },
    { id: 'working', active: 3 },
  ];
  assert.deepEqual(order('least-loaded', sketches), ['rested', 'recent', 'working', 'failing']);
});

test('D-14 fastest tries everyone once, then takes the lowest time to a first token', () => {
  const sketches: Sketch[] = [
    { id: 'slow', firstTokenMs: 80, asked: 1 },
    { id: 'quick', firstTokenMs: 20, asked: 2 },
    { id: 'failed', asked: 3 },
    { id: 'new' },
  ];
  assert.deepEqual(order('fastest', sketches), ['new', 'quick', 'slow', 'failed']);
});

test('D-14 every twentieth choice of fastest measures again whom it asked longest ago', () => {
  const sketches: Sketch[] = [
    { id: 'quick', firstTokenMs: 20, asked: 40 },
    { id: 'stale', firstTokenMs: 80, asked: 3 },
  ];
  const firsts = Array.from(
    { length: 3 * EXPLORE_EVERY },
    (_, choices) => order('fastest', sketches, { choices, last: 'quick' })[0],
  );
  assert.equal(firsts.filter((first) => first === 'stale').length, 3);
});

const SKETCH: fc.Arbitrary<Omit<Sketch, 'id'>> = fc.record({
  active: fc.nat(9),
  reported: fc.nat(9),
  asked: fc.nat(99),
  slots: fc.integer({ min: 0, max: 9 }),
  priority: fc.integer({ min: -1000, max: 1000 }),
  penalty: fc.nat(4),
  firstTokenMs: fc.option(fc.nat(999)),
});

test('every strategy keeps every candidate, changes nothing and decides alike on the same figures', () => {
  for (const name of STRATEGY_NAMES) assert.deepEqual(order(name, [], { choices: EXPLORE_EVERY - 1, last: 'a' }), []);
  const candidates = fc.uniqueArray(fc.tuple(fc.string(), SKETCH), { selector: ([id]) => id, maxLength: 12 });
  const cursor = fc.record({ choices: fc.nat(100), last: fc.option(fc.string()) });
  fc.assert(
    fc.property(candidates, cursor, fc.constantFrom(...STRATEGY_NAMES), (entries, at, name) => {
      const given = Object.freeze(entries.map(([id, sketch]) => sketched({ ...sketch, id })));
      const context = { model: 'm', cursor: at };
      const ordered = STRATEGIES[name](given, context);
      assert.deepEqual(new Set(ordered), new Set(given));
      assert.equal(ordered.length, given.length);
      assert.deepEqual(STRATEGIES[name](given, context), ordered);
    }),
  );
});
