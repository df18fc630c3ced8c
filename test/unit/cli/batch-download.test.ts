import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { download } from '../../../cli/commands/batch-follow.ts';

const dir = mkdtempSync(join(tmpdir(), 'meshnode-download-'));
after(() => rmSync(dir, { recursive: true, force: true }));

/** Gives these pieces, and ends only when it is told to. */
function giving(pieces: readonly string[], { ends }: { readonly ends: boolean }) {
  return {
    asked: '',
    async bytes(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
      this.asked = path;
      return (async function* () {
        for (const piece of pieces) yield Buffer.from(piece);
        if (ends) return;
        await new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        });
      })();
    },
  };
}

test('a file appears when it is whole, whatever its id', async () => {
  const path = join(dir, 'whole.jsonl');
  const api = giving(['a\n', 'b\n'], { ends: true });
  await download(api, { fileId: 'file-1/../x', path, signal: new AbortController().signal });
  assert.equal(readFileSync(path, 'utf8'), 'a\nb\n');
  assert.equal(api.asked, '/v1/files/file-1%2F..%2Fx/content');
});

test('a download that is interrupted ends at once and leaves nothing', async () => {
  const path = join(dir, 'cut.jsonl');
  const stop = new AbortController();
  const downloading = download(giving(['a\n'], { ends: false }), { fileId: 'f', path, signal: stop.signal });
  setImmediate(() => stop.abort());
  await assert.rejects(downloading, { name: 'AbortError' });
  assert.ok(!existsSync(path) && !existsSync(`${path}.part`));
});
