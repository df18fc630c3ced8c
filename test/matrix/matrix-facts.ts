/** What the cases need to know of the model that is here. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { ask } from '../support/matrix-answer.ts';
import { DEMO } from '../support/matrix-nodes.ts';
import { CHAT, COMPLETION, type Facts, only, user } from './matrix-case.ts';

/** Asks the node that has the model. */
export async function matrixFacts(url: string): Promise<Facts> {
  const chat = only(await ask(url, 'chat', { ...CHAT, model: DEMO })).text;
  const completion = only(await ask(url, 'completion', { ...COMPLETION, model: DEMO })).text;
  const idsOf = async (fields: object): Promise<readonly number[]> => {
    const { result } = await ask(url, 'tokenize', { model: DEMO, add_special_tokens: false, ...fields });
    return result.tokens;
  };
  const firstOf = async (text: string): Promise<number> => {
    const [first] = await idsOf({ prompt: text });
    assert.ok(first !== undefined, 'the model says something');
    return first;
  };
  return {
    greedy: { chat, completion },
    first: { chat: await firstOf(chat), completion: await firstOf(completion) },
    endOfTurn: await endOfTurn(url),
    promptTokens: await idsOf({ prompt: COMPLETION.prompt, add_special_tokens: true }),
    fillsIn: readFileSync(demoModelPath()).includes('fim_pre'),
  };
}

/** The demo model speaks ChatML. */
async function endOfTurn(url: string): Promise<number> {
  const body = { model: DEMO, messages: [user('Hi')], return_token_strs: true };
  const { tokens, token_strs = [] } = (await ask(url, 'tokenize', body)).result;
  const found = tokens[token_strs.indexOf('<|im_end|>')];
  assert.ok(found !== undefined, `a turn ends with <|im_end|>: ${JSON.stringify(token_strs)}`);
  return found;
}
