import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  chooseSlot,
  LEAST_REUSED_TOKENS,
  type SlotState,
  Slots,
} from '../../../node/backends/llama-cpp/child/slots.ts';
import fc from '../../support/fc.ts';

const range = (length: number, first = 0): number[] => Array.from({ length }, (_, index) => first + index);
const free = (tokens: readonly number[], lastUsed = 0): SlotState => ({ busy: false, tokens, lastUsed });
const busy = (tokens: readonly number[] = []): SlotState => ({ busy: true, tokens, lastUsed: 0 });

test('without anything to reuse the lowest free slot is handed out, and none when all are busy', () => {
  const slots = new Slots(range(3).map(() => ({ tokens: [] })));
  const next = (): number | undefined => slots.acquire([1])?.index;
  assert.deepEqual([next(), next(), next(), next()], [0, 1, 2, undefined]);
  slots.release(2);
  slots.release(0);
  assert.deepEqual([next(), next(), next()], [0, 2, undefined]);
});

test('slots are chosen by what the sequences hold at that moment', () => {
  const sequences = range(2).map(() => ({ tokens: [] as number[] }));
  const slots = new Slots(sequences);
  assert.deepEqual(slots.acquire(range(50)), { index: 0, reusedTokens: 0 });
  slots.release(0);
  sequences[1]?.tokens.push(...range(40));
  assert.deepEqual(slots.acquire(range(50)), { index: 1, reusedTokens: 40 });
  assert.deepEqual(slots.acquire(range(50)), { index: 0, reusedTokens: 0 }, 'a busy sequence is nobody else’s');
});

test('the longest common beginning wins, the lowest slot of equals, and a busy slot never', () => {
  const prompt = range(100);
  const slots = [free(range(60, 7)), free(range(40)), busy(range(99)), free([...range(50), 3, 3]), free(range(50))];
  assert.deepEqual(chooseSlot(slots, prompt), { index: 3, reusedTokens: 50 });
});

test('an unrelated prompt takes what was not used for longest, and first of all what holds nothing worth keeping', () => {
  const prompt = range(100, 5_000);
  const chat = (lastUsed: number): SlotState => free(range(60, lastUsed * 100), lastUsed);
  assert.equal(chooseSlot([chat(3), chat(1), chat(2)], prompt)?.index, 1);
  assert.equal(chooseSlot([chat(3), chat(1), free(range(5), 9)], prompt)?.index, 2);
  assert.equal(chooseSlot([free([], 4), free([], 2)], prompt)?.index, 0, 'the lowest of equals');
});

test('beside busy slots an unrelated prompt leaves no gap between them, whatever it drives out', () => {
  const prompt = range(100, 5_000);
  const chat = free(range(60), 9);
  const empty = free([]);
  assert.equal(chooseSlot([busy(), chat, busy(), empty], prompt)?.index, 1, 'it fills a gap');
  assert.equal(chooseSlot([busy(), chat, empty, empty], prompt)?.index, 1);
  assert.equal(chooseSlot([empty, empty, busy(), chat], prompt)?.index, 1);
  assert.equal(chooseSlot([chat, busy(), empty, empty], prompt)?.index, 2, 'of both neighbours that which costs less');
  assert.equal(chooseSlot([busy(), busy(), busy()], prompt), null);
});

test('two conversations by turns keep their slots while there is a third', () => {
  const sequences = range(3).map(() => ({ tokens: [] as number[] }));
  const slots = new Slots(sequences);
  const turn = (tokens: readonly number[]): number => {
    const { index, reusedTokens } = slots.acquire(tokens) ?? { index: -1, reusedTokens: 0 };
    const sequence = sequences[index];
    assert.ok(sequence !== undefined);
    sequence.tokens = [...tokens];
    slots.release(index);
    return reusedTokens;
  };
  turn(range(50));
  turn(range(50, 1_000));
  assert.deepEqual([turn(range(60)), turn(range(60, 1_000)), turn(range(70))], [50, 50, 60]);
  assert.equal(turn(range(40, 9_000)), 0);
  assert.deepEqual([turn(range(80)), turn(range(70, 1_000))], [70, 60]);
});

test('a beginning shorter than the least useful one is not worth leaving the lowest slot for', () => {
  const slots = (length: number): SlotState[] => [free([]), free(range(length))];
  assert.deepEqual(chooseSlot(slots(LEAST_REUSED_TOKENS - 1), range(100)), { index: 0, reusedTokens: 0 });
  assert.deepEqual(chooseSlot(slots(LEAST_REUSED_TOKENS), range(100)), { index: 1, reusedTokens: LEAST_REUSED_TOKENS });
});

test('at least one token of the prompt is left to be evaluated', () => {
  const prompt = range(LEAST_REUSED_TOKENS + 1);
  assert.equal(chooseSlot([free(range(100))], prompt)?.reusedTokens, LEAST_REUSED_TOKENS);
  assert.equal(chooseSlot([free(range(100))], prompt.slice(1))?.reusedTokens, 0);
});

test('whatever the slots hold, the chosen one is free and none that is free holds a longer useful beginning', () => {
  // Sequences that are cut and go on differently, as conversations do.
  const tokens = fc
    .tuple(fc.nat({ max: 120 }), fc.array(fc.nat({ max: 1 }), { maxLength: 60 }))
    .map(([shared, own]) => [...range(shared), ...own.map((token) => 1_000 + token)]);
  const slot = fc.record({ busy: fc.boolean(), tokens, lastUsed: fc.nat({ max: 20 }) });
  fc.assert(
    fc.property(
      fc.array(slot, { maxLength: 16 }),
      tokens.filter((prompt) => prompt.length > 0),
      (slots, prompt) => {
        const choice = chooseSlot(slots, prompt);
        const useful = slots.map(({ busy, tokens }) => (busy ? -1 : usefulLength(tokens, prompt)));
        if (choice === null) return useful.every((length) => length === -1);
        assert.equal(slots[choice.index]?.busy, false);
        assert.equal(choice.reusedTokens, Math.max(...useful));
        if (choice.reusedTokens > 0) assert.equal(choice.index, useful.indexOf(choice.reusedTokens));
        else assert.ok(useful[choice.index] === 0 && isBeside(slots, choice.index));
        assert.deepEqual(
          slots[choice.index]?.tokens.slice(0, choice.reusedTokens),
          prompt.slice(0, choice.reusedTokens),
        );
        return choice.reusedTokens < prompt.length;
      },
    ),
  );
});

/** No free slot between this one and the nearest busy one. */
function isBeside(slots: readonly SlotState[], index: number): boolean {
  const busyIds = slots.flatMap((slot, id) => (slot.busy ? [id] : []));
  const nearest = Math.min(...busyIds.map((id) => Math.abs(id - index)));
  if (busyIds.length === 0) return true;
  const between = (id: number): boolean => id > (busyIds[0] ?? 0) && id < (busyIds.at(-1) ?? 0);
  return nearest === 1 || between(index);
}

/** The plain way: the longest beginning of the prompt without its last token that the slot begins with. */
function usefulLength(held: readonly number[], prompt: readonly number[]): number {
  for (let length = prompt.length - 1; length >= LEAST_REUSED_TOKENS; length -= 1) {
    if (length <= held.length && prompt.slice(0, length).every((token, index) => token === held[index])) return length;
  }
  return 0;
}
