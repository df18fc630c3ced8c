/** Tokens that a cluster's services want to see: asked of the manager, and anew well before they expire. */

import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import type { ManagerClient } from './manager-client.ts';

export interface ServiceTokensComponents {
  readonly client: Pick<ManagerClient, 'call'>;
  readonly clock: Clock;
}

/** As managers read it. */
const ASKED = '1h';
const ASKED_MS = 3_600_000;
/** Part of its life after which a token is replaced. */
const WORN = 0.8;
/** What does not fit into a header is no token. */
const TOKEN = /^[\x21-\x7e]{1,8192}$/;

interface Token {
  readonly text: string;
  /** On the clock; when it is to be replaced. */
  readonly renewAt: number;
}

export class ServiceTokens {
  readonly #components: ServiceTokensComponents;
  readonly #tokens = new Map<string, Token>();

  constructor(components: ServiceTokensComponents) {
    this.#components = components;
  }

  /** By the service's id; null before it was fetched. Never log it. */
  get(id: string): string | null {
    return this.#tokens.get(id)?.text ?? null;
  }

  isDue(id: string): boolean {
    const token = this.#tokens.get(id);
    return token === undefined || this.#components.clock.now() >= token.renewAt;
  }

  /** Asks for a new one; the one of before stays in force when that fails. @throws MeshError as `ManagerClient.call`. */
  async renew(id: string, signal: AbortSignal): Promise<void> {
    const { client, clock } = this.#components;
    const path = `/services/${id}/token`;
    const said = await client.call<unknown>({ method: 'POST', path, body: { duration: ASKED } }, signal);
    const text = isRecord(said) ? said['token'] : null;
    if (typeof text !== 'string' || !TOKEN.test(text)) {
      throw new MeshError('upstream_error', `The manager gave no usable token for service ${id}`);
    }
    const lifeMs = Math.min(ASKED_MS, lifeOf(text) ?? ASKED_MS);
    this.#tokens.set(id, { text, renewAt: clock.now() + lifeMs * WORN });
  }

  /** Forgets the tokens of all other services. */
  keep(ids: ReadonlySet<string>): void {
    for (const id of this.#tokens.keys()) if (!ids.has(id)) this.#tokens.delete(id);
  }
}

/** A manager may give less time than it was asked for; a token that is a JWT says so. Milliseconds, or null. */
function lifeOf(token: string): number | null {
  const [, payload, signature] = token.split('.');
  if (payload === undefined || signature === undefined) return null;
  const claims = parseJson(Buffer.from(payload, 'base64url').toString('utf8'));
  if (!isRecord(claims)) return null;
  const { iat, exp } = claims;
  // Only the difference: both are of the manager's clock.
  return typeof iat === 'number' && typeof exp === 'number' && exp > iat ? (exp - iat) * 1000 : null;
}
