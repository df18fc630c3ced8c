/** What `@globus/sdk` is used for: the token's request, an endpoint's status, hosts and scope. Imported when first needed. */
import { oauth2 } from '@globus/sdk/services/auth';
import { CONFIG, endpoints } from '@globus/sdk/services/compute';

/** Asks for a token for Globus Compute by client credentials. */
export function requestToken(
  { id, secret }: { readonly id: string; readonly secret: string },
  send: typeof fetch,
): Promise<Response> {
  const basic = Buffer.from(`${id}:${secret}`).toString('base64');
  const payload = { grant_type: 'client_credentials', scope: CONFIG.SCOPES.ALL };
  const headers = { Authorization: `Basic ${basic}` };
  // It sends any form, but its types know the grants of browsers only.
  const options = { payload, headers } as unknown as Parameters<typeof oauth2.token.exchange>[0];
  return oauth2.token.exchange(options, { fetch: { options: { __callable: send } } });
}

/** Asks how an endpoint does. */
export function requestStatus(endpointUuid: string, token: string, send: typeof fetch): Promise<Response> {
  const headers = { Authorization: `Bearer ${token}` };
  return endpoints.getStatus(endpointUuid, { headers }, { fetch: { options: { __callable: send } } });
}
