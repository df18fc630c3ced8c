/** What both OpenAI bodies may not say, beyond their schemas. */
import { MeshError } from '../../../node/common/errors.ts';
import { invalidField } from './body-json.ts';

const MAX_BIASED_TOKENS = 1024;
const MAX_TOKEN_ID = 0x7fff_ffff;

interface SharedBody {
  readonly stream?: boolean;
  readonly stream_options?: object;
  readonly logit_bias?: Readonly<Record<string, number>>;
}

/** @throws MeshError `invalid_request` that names the field. */
export function checkShared({ stream, stream_options, logit_bias = {} }: SharedBody): void {
  if (stream_options !== undefined && stream !== true) {
    throw invalidField('stream_options', "it is allowed only when 'stream' is true");
  }
  const tokens = Object.keys(logit_bias);
  if (tokens.length > MAX_BIASED_TOKENS) throw invalidField('logit_bias', `at most ${MAX_BIASED_TOKENS} tokens`);
  for (const token of tokens) {
    if (!/^\d{1,10}$/.test(token) || Number(token) > MAX_TOKEN_ID) {
      throw invalidField('logit_bias', 'its keys must be token ids, which are whole numbers from 0 on');
    }
  }
}

/** The refusal of what OpenAI has and this node does not serve: by name, never silently ignored. */
export function unserved(param: string, why: string): MeshError {
  return new MeshError('invalid_request', `'${param}' asks for what is not served here: ${why}.`, { param });
}

/** The refusal of a body without a field that another field makes necessary. */
export function missing(param: string): MeshError {
  return new MeshError('invalid_request', `Missing required parameter: '${param}'.`, { param });
}
