/** Status manifests as text: what is read, what is refused, and that nothing hidden is quoted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyFor, targetsOf } from '../../../node/backends/openai-http/http-target.ts';
import { parseWaiting } from '../../../node/backends/openai-http/vllm-load.ts';
import { newServer, type RemoteNode } from '../../../node/storage/remote-node.ts';
import { parseManifest } from '../../../node/storage/status-manifest.ts';
import fc from '../../support/fc.ts';

/** As FIRST's documentation has it. */
const PUBLISHED = {
  'openai-us-east': {
    status: 'Live',
    model: 'OpenAI GPT-4',
    description: 'GPT-4 for research',
    experts: ['gpt-4o', 'gpt-4o-mini', 'gpt-4o'],
    url: 'https://api.openai.com/v1',
    endpoint_id: 'openai-production',
  },
};

test('F-18 a manifest of the FIRST gateway is read as it is documented', () => {
  assert.deepEqual(parseManifest(JSON.stringify(PUBLISHED)), {
    entries: [
      {
        id: 'openai-us-east',
        title: 'OpenAI GPT-4',
        isLive: true,
        status: 'Live',
        url: 'https://api.openai.com',
        endpointId: 'openai-production',
        models: ['gpt-4o', 'gpt-4o-mini'],
      },
    ],
    bad: [],
  });
});

test('F-18 only Live is live, and a bad entry names its field without its address', () => {
  const base = PUBLISHED['openai-us-east'];
  for (const status of ['Offline', 'Maintenance', 'Stopped', 'live', 'LIVE']) {
    assert.equal(parseManifest(JSON.stringify({ a: { ...base, status } })).entries[0]?.isLive, false, status);
  }
  const rows: readonly (readonly [object | string | null, RegExp])[] = [
    [null, /no object/],
    ['x', /no object/],
    [{ ...base, status: undefined }, /"status" is missing/],
    [{ ...base, url: 3 }, /"url" is missing/],
    [{ ...base, endpoint_id: '' }, /"endpoint_id" is missing/],
    [{ ...base, experts: 'gpt' }, /"experts" is no list/],
    [{ ...base, experts: ['gpt', 'a\nb'] }, /no model id/],
    [{ ...base, url: 'http://169.254.169.254/canary' }, /"url": a link-local, multicast or metadata address/],
    [{ ...base, url: 'http://canary:canary@host' }, /"url": no usable URL/],
    [{ ...base, url: 'file:///canary' }, /"url": no usable URL/],
  ];
  for (const [entry, expected] of rows) {
    const { entries, bad } = parseManifest(JSON.stringify({ a: entry, good: base }));
    assert.equal(entries.length, 1, 'the others stay');
    assert.match(bad[0]?.problem ?? '', expected);
    assert.doesNotMatch(bad[0]?.problem ?? '', /canary|169\.254/);
  }
  for (const text of ['', '[]', '3', 'null']) assert.throws(() => parseManifest(text), /it is no JSON/);
});

const nodeOf = (over: Partial<RemoteNode> = {}): RemoteNode => ({
  ...newServer('api:first', { name: 'first', url: null }, { manifest: '/status.json' }),
  hasKey: true,
  origin: 'registry',
  ...over,
});

test('F-14 entries whose names differ in punctuation only keep apart, and fingerprints have no space', () => {
  const entry = PUBLISHED['openai-us-east'];
  const current = parseManifest(JSON.stringify({ 'a b': entry, 'a-b': entry, 'a/b': entry, 'ä:b': entry }));
  const fingerprints = targetsOf(nodeOf(), { current, problem: null }).targets.map(({ fingerprint }) => fingerprint);
  assert.equal(new Set(fingerprints).size, 4);
  for (const fingerprint of fingerprints) assert.match(fingerprint, /^api:first:[\x21-\x7e]+$/);
});

test('F-18 a manifest from the internet names no private address; a file, one from here, or with a URL given does', () => {
  const inside = { ...PUBLISHED['openai-us-east'], url: 'http://192.168.1.5:8000' };
  const current = parseManifest(JSON.stringify({ a: inside }));
  const count = (over: Partial<RemoteNode>) => targetsOf(nodeOf(over), { current, problem: null }).targets.length;
  assert.equal(count({ manifest: 'https://status.example.com/s' }), 0);
  assert.equal(count({ manifest: 'http://192.168.1.2/s' }), 1);
  assert.equal(count({ manifest: '/status.json' }), 1);
  assert.equal(count({ manifest: 'https://status.example.com/s', url: 'http://192.168.1.5:8000' }), 1);
  const { idle } = targetsOf(nodeOf({ manifest: 'https://status.example.com/s' }), { current, problem: null });
  assert.match(idle[0]?.problem ?? '', /names a private address/);
});

test('F-14 a key of a manifest goes to its endpoint_id only, whatever else the object is asked for', () => {
  const current = parseManifest(JSON.stringify(PUBLISHED));
  const [target] = targetsOf(nodeOf(), { current, problem: null }).targets;
  assert.ok(target);
  assert.equal(keyFor(target, '{"openai-production":"sk-1"}'), 'sk-1');
  for (const keys of ['{"other":"sk-1"}', '{"openai-production":7}', '{"openai-production":"a\\nb"}', '{', 'sk-1']) {
    assert.equal(keyFor(target, keys), null, keys);
  }
  assert.equal(keyFor({ ...target, endpointId: '__proto__' }, '{}'), null);
});

test('any text as a manifest or as metrics is read or refused, and never more than it says', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (json) => {
      const { entries, bad } = parseManifest(JSON.stringify(json));
      assert.equal(entries.length + bad.length, Object.keys(JSON.parse(JSON.stringify(json)) as object).length);
    }),
  );
  fc.assert(fc.property(fc.string(), (text) => Number.isFinite(parseWaiting(text))));
  assert.equal(parseWaiting('vllm:num_requests_waiting 1\nvllm:num_requests_waiting{a="}"} 2.0\n'), 3);
  assert.equal(parseWaiting('# vllm:num_requests_waiting 9\nvllm:num_requests_waiting_total 9\n'), 0);
});
