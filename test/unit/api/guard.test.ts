import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bodyRefusal, guardRules, keyRefusal, type RequestFacts, refusal } from '../../../node/api/guard.ts';

const OPTIONS = { host: '127.0.0.1', port: 8642, apiKey: null, allowHosts: [], allowOrigins: [] };
const rules = guardRules(OPTIONS);

function facts(overrides: Partial<RequestFacts> = {}): RequestFacts {
  return {
    url: '/v1/models',
    hosts: ['localhost:8642'],
    origins: [],
    secFetchSite: null,
    authorization: null,
    ...overrides,
  };
}

describe('refusal by Host', () => {
  for (const host of ['localhost:8642', '127.0.0.1:8642', '[::1]:8642', 'LOCALHOST:8642']) {
    it(`lets ${host} in`, () => assert.equal(refusal(facts({ hosts: [host] }), rules), null));
  }
  const foreign = [
    'evil.example',
    'evil.example:8642',
    'localhost',
    'localhost:8643',
    'localhost.:8642',
    'x.localhost:8642',
    'node.local:8642',
    '127.0.0.1.nip.io:8642',
    '127.1:8642',
    '0.0.0.0:8642',
    '[::]:8642',
    'localhost:8642@evil',
    'localhost:08642',
    '',
  ];
  for (const host of foreign) {
    it(`refuses ${JSON.stringify(host)}`, () =>
      assert.equal(refusal(facts({ hosts: [host] }), rules)?.code, 'forbidden'));
  }
  it('refuses a request without Host and one with two', () => {
    assert.equal(refusal(facts({ hosts: [] }), rules)?.code, 'forbidden');
    assert.equal(refusal(facts({ hosts: ['localhost:8642', 'localhost:8642'] }), rules)?.code, 'forbidden');
  });
  it('refuses an absolute-form request target', () => {
    assert.equal(refusal(facts({ url: 'http://localhost:8642/v1/models' }), rules)?.code, 'forbidden');
  });
  it('lets a name without port in on port 80 only', () => {
    assert.equal(refusal(facts({ hosts: ['localhost'] }), guardRules({ ...OPTIONS, port: 80 })), null);
  });
  it('lets the names of allowHosts in, bare ones with and without the port', () => {
    const allowing = guardRules({ ...OPTIONS, allowHosts: ['Box.lan', 'proxy.lan:443'] });
    for (const host of ['box.lan', 'box.lan:8642', 'proxy.lan:443']) {
      assert.equal(refusal(facts({ hosts: [host] }), allowing), null);
    }
    assert.equal(refusal(facts({ hosts: ['proxy.lan:8642'] }), allowing)?.code, 'forbidden');
  });
  it('lets the bound address in, and no wildcard', () => {
    assert.equal(
      refusal(facts({ hosts: ['192.168.1.5:8642'] }), guardRules({ ...OPTIONS, host: '192.168.1.5' })),
      null,
    );
    assert.equal(refusal(facts({ hosts: ['[fe80::1]:8642'] }), guardRules({ ...OPTIONS, host: 'fe80::1' })), null);
    assert.ok(refusal(facts({ hosts: ['0.0.0.0:8642'] }), guardRules({ ...OPTIONS, host: '0.0.0.0' })));
  });
});

describe('refusal by Origin', () => {
  const foreign = [
    'https://evil.example',
    'null',
    '',
    'http://localhost:3000',
    'https://localhost:8642',
    'http://localhost:8642.evil.example',
  ];
  for (const origin of foreign) {
    it(`refuses ${JSON.stringify(origin)}`, () => {
      assert.equal(refusal(facts({ origins: [origin] }), rules)?.code, 'forbidden');
    });
  }
  it('lets our own pages in', () => assert.equal(refusal(facts({ origins: ['http://localhost:8642'] }), rules), null));
  it('refuses cross-site fetches unless their origin is allowed', () => {
    const allowing = guardRules({ ...OPTIONS, allowOrigins: ['https://chat.example/'] });
    assert.equal(refusal(facts({ secFetchSite: 'cross-site' }), allowing)?.code, 'forbidden');
    assert.equal(refusal(facts({ secFetchSite: 'cross-site', origins: ['https://chat.example'] }), allowing), null);
    assert.equal(
      refusal(facts({ origins: ['https://chat.example', 'https://chat.example'] }), allowing)?.code,
      'forbidden',
    );
  });
});

describe('keyRefusal', () => {
  const keyed = guardRules({ ...OPTIONS, apiKey: 'sk-right' });
  it('asks for nothing without a key', () => assert.equal(keyRefusal(facts(), rules), null));
  it('lets the right bearer key in', () => {
    assert.equal(keyRefusal(facts({ authorization: 'Bearer sk-right' }), keyed), null);
  });
  for (const authorization of [
    null,
    '',
    'Bearer',
    'Bearer sk-wrong',
    'Basic sk-right',
    'sk-right',
    'Bearer sk-right x',
  ]) {
    it(`refuses ${JSON.stringify(authorization)}`, () => {
      assert.equal(keyRefusal(facts({ authorization }), keyed)?.code, 'unauthorized');
    });
  }
  it('leaves health and root open, whatever their query', () => {
    for (const url of ['/', '/health', '/health?x=1']) assert.equal(keyRefusal(facts({ url }), keyed), null);
    assert.ok(keyRefusal(facts({ url: '/health/../v1/models' }), keyed));
  });
});

describe('bodyRefusal', () => {
  for (const type of [
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset=UTF-8',
  ]) {
    it(`takes ${type}`, () => assert.equal(bodyRefusal([type], null), null));
  }
  const refused = [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/json;x',
    'application/jsonx',
    'application/json ',
    ' application/json',
    'application/json\t;charset=utf-8',
    'application/json, text/plain',
    'text/plain; application/json',
    'application/json; charset=utf-16',
    'application/ld+json',
    '*/*',
    '',
  ];
  for (const type of refused) {
    it(`refuses ${JSON.stringify(type)}`, () =>
      assert.equal(bodyRefusal([type], null)?.code, 'unsupported_media_type'));
  }
  it('refuses a missing type, two types and an encoded body', () => {
    assert.ok(bodyRefusal([], null));
    assert.ok(bodyRefusal(['application/json', 'application/json'], null));
    assert.ok(bodyRefusal(['application/json'], 'gzip'));
  });
});
