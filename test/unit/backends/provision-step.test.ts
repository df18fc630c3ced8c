import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ModelService } from '../../../node/backends/cluster-sessions/model-services.ts';
import {
  type ProvisionRule,
  parseRule,
  provisionRule,
} from '../../../node/backends/cluster-sessions/provision-rule.ts';
import {
  backOffMs,
  fractionOf,
  isIdle,
  nextStep,
  type ProvisionFacts,
  retryAfterMs,
} from '../../../node/backends/cluster-sessions/provision-step.ts';
import fc from '../../support/fc.ts';

const RULE = provisionRule({ cluster: 'lab', model: 'llama', image: 'vllm' });

function facts(overrides: Partial<ProvisionFacts> = {}): ProvisionFacts {
  const idle = { service: null, isLive: false, hasAsked: false, othersRunning: [], problems: [] };
  return { rule: RULE, ...idle, ...overrides };
}

const service = (desired: number, active: number): ModelService => {
  return { id: 'i', name: RULE.service, desired, active, endpoint: null, isPublic: false };
};

const reasonOf = (overrides: Partial<ProvisionFacts>): string => {
  const step = nextStep(facts(overrides));
  assert.equal(step.act, 'fail');
  return step.act === 'fail' ? step.reason : '';
};

test('C-5 a model without a service gets one, a parked one is scaled, one that starts is awaited', () => {
  assert.equal(nextStep(facts()).act, 'create');
  assert.equal(nextStep(facts({ service: service(0, 0) })).act, 'scale');
  assert.equal(nextStep(facts({ service: service(1, 0) })).act, 'wait');
  assert.equal(nextStep(facts({ service: service(1, 1) })).act, 'list');
  assert.equal(nextStep(facts({ service: service(1, 1), isLive: true })).act, 'done');
  assert.equal(nextStep(facts({ service: service(0, 0), isLive: true })).act, 'scale', 'the lists are late');
});

test('a start that cannot succeed says why and what to do', () => {
  assert.match(reasonOf({ service: service(1, 0), problems: ['old', 'no such image'] }), /no such image/);
  assert.match(reasonOf({ service: service(0, 0), hasAsked: true }), /scaled it to zero meanwhile/);
  assert.match(reasonOf({ hasAsked: true }), /deleted it/);
  const rule = provisionRule({ cluster: 'lab', model: 'llama', image: null, service: 'theirs' });
  assert.match(reasonOf({ rule }), /no service "theirs": create it/);
  const limited = { ...RULE, maxRunning: 1 };
  assert.match(
    reasonOf({ rule: limited, othersRunning: ['other-svc'] }),
    /cluster service scale lab other-svc 0.*--max/,
  );
  assert.match(reasonOf({ rule: limited, othersRunning: ['other-svc'], service: service(0, 0) }), /the limit is 1/);
  assert.equal(nextStep(facts({ rule: limited, othersRunning: ['o'], service: service(1, 0) })).act, 'wait');
});

test('the limit of running services is never passed, and nothing is asked for twice in one start', () => {
  const counts = fc.integer({ min: 0, max: 3 });
  const drawn = fc.record({
    desired: fc.option(counts, { nil: null }),
    active: counts,
    isLive: fc.boolean(),
    hasAsked: fc.boolean(),
    others: counts,
    maxRunning: fc.integer({ min: 1, max: 3 }),
    problems: fc.array(fc.string(), { maxLength: 2 }),
  });
  fc.assert(
    fc.property(drawn, ({ desired, active, isLive, hasAsked, others, maxRunning, problems }) => {
      const known = desired === null ? null : service(desired, Math.min(active, desired));
      const othersRunning = Array.from({ length: others }, (_, index) => `other-${index}`);
      const rule = { ...RULE, maxRunning };
      const step = nextStep({ rule, service: known, isLive, hasAsked, othersRunning, problems });
      const asks = step.act === 'create' || step.act === 'scale';
      if (asks) assert.ok(!hasAsked && others < maxRunning && (known?.desired ?? 0) === 0);
      if (step.act === 'done') assert.ok(isLive && known !== null && known.active > 0);
    }),
  );
});

test('failures are followed by longer and longer pauses, up to ten minutes', () => {
  assert.deepEqual([1, 2, 3, 4].map(backOffMs), [15_000, 30_000, 60_000, 120_000]);
  assert.equal(backOffMs(1000), 600_000);
});

test('when to come back follows from how long the last start took', () => {
  assert.equal(retryAfterMs(10_000, null), 30_000);
  assert.equal(retryAfterMs(10_000, 70_000), 60_000);
  assert.equal(retryAfterMs(80_000, 70_000), 5000);
  assert.equal(retryAfterMs(0, 3_600_000), 120_000);
  assert.deepEqual([fractionOf(5, null), fractionOf(5, 10), fractionOf(50, 10)], [null, 0.5, 0.99]);
});

test('a service is idle when nothing runs and the last use is long ago', () => {
  assert.equal(isIdle({ idleMs: 100 }, { inFlight: 0, lastUsedAt: 0 }, 99), false);
  assert.equal(isIdle({ idleMs: 100 }, { inFlight: 0, lastUsedAt: 0 }, 100), true);
  assert.equal(isIdle({ idleMs: 100 }, { inFlight: 1, lastUsedAt: 0 }, 1000), false);
  assert.equal(isIdle({ idleMs: null }, { inFlight: 0, lastUsedAt: 0 }, 1e12), false);
});

test('a rule has defaults, a service name of its own, and comes back from its file as it was', () => {
  assert.match(RULE.service, /^mesh-llama-[0-9a-f]{4}$/);
  assert.deepEqual([RULE.idleMs, RULE.waitMs, RULE.maxRunning, RULE.template?.folder], [1_800_000, 60_000, 2, 'llama']);
  assert.deepEqual(RULE.template?.resources, { cpu: '4', mem: '32g', 'cuda.shares': '1' });
  const theirs = provisionRule({ cluster: 'lab', model: 'x', image: null, service: 'theirs' });
  assert.deepEqual([theirs.idleMs, theirs.template], [null, null], 'what others made is theirs to end');
  for (const rule of [RULE, theirs]) assert.deepEqual(parseRule(JSON.parse(JSON.stringify(rule))), rule);
});

test('every model gets a service name that managers take', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, maxLength: 60 }), (text) => {
      const model = text.replace(/\p{C}/gu, '-');
      if (model === '') return;
      assert.match(provisionRule({ cluster: 'lab', model, image: 'vllm' }).service, /^[\w-]{4,24}$/);
    }),
  );
});

test('a rule that could not work is refused with the field that is wrong', () => {
  const wish = { cluster: 'lab', model: 'llama', image: 'vllm' };
  const cases: readonly [object, string][] = [
    [{ image: null }, 'image'],
    [{ image: 'two words' }, 'image'],
    [{ service: 'abc' }, 'name'],
    [{ resources: { cpu: 'many' } }, 'resource'],
    [{ idleMs: -1 }, 'idleMs'],
    [{ waitMs: 0.5 }, 'waitMs'],
    [{ maxRunning: 0 }, 'maxRunning'],
    [{ model: '' }, 'model'],
    [{ cluster: 'Lab 1' }, 'cluster'],
  ];
  for (const [change, param] of cases) {
    assert.throws(
      () => provisionRule({ ...wish, ...change }),
      (error: { code: string; facts: { param: string } }) => {
        assert.deepEqual([error.code, error.facts.param], ['invalid_request', param]);
        return true;
      },
    );
  }
});

test('a damaged file of rules is refused, not guessed at', () => {
  const broken: readonly Partial<Record<keyof ProvisionRule, unknown>>[] = [
    { idleMs: 'never' },
    { waitMs: null },
    { template: { image: 'vllm' } },
    { template: { ...RULE.template, resources: { cpu: 4 } } },
    { service: undefined },
  ];
  for (const change of broken) assert.throws(() => parseRule({ ...RULE, ...change }), Error);
  assert.throws(() => parseRule([]), Error);
});
