import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GrammarCache } from '../../../node/backends/llama-cpp/child/grammar-cache.ts';
import { MeshError } from '../../../node/common/errors.ts';

test('a grammar is compiled once while it is in use, and the least recently used is forgotten', async () => {
  const compiled: string[] = [];
  const cache = new GrammarCache(async (source) => {
    compiled.push(source);
    return source;
  });
  await cache.get('favourite');
  for (let index = 0; index < 100; index += 1) {
    await cache.get(`other ${index}`);
    await cache.get('favourite');
  }
  assert.equal(compiled.filter((source) => source === 'favourite').length, 1);
  await cache.get('other 99');
  assert.equal(compiled.length, 101);
  await cache.get('other 0');
  assert.equal(compiled.length, 102);
});

test('one that does not compile is refused, and not remembered', async () => {
  let works = false;
  const cache = new GrammarCache(async (source) => {
    if (!works) throw new Error('bad grammar');
    return source;
  });
  await assert.rejects(cache.get('x'), (error) => error instanceof MeshError && error.code === 'invalid_request');
  works = true;
  assert.equal(await cache.get('x'), 'x');
});
