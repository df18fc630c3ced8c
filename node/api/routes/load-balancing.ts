/** `GET|PUT /api/v1/config/load-balancing`: how requests are spread, read and changed while the node runs. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import { MeshError } from '../../common/errors.ts';
import { type LoadBalancing, STRATEGY_NAMES } from '../../routing/settings.ts';
import type { FacadeComponents, LoadBalancingStatus } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { SMALL_BODY_BYTES, smallBody } from '../json-body.ts';

const PATH = '/api/v1/config/load-balancing';

/** The last two are told, not set: a client may send back what it has read. */
const patchSchema = Type.Partial(
  Type.Object({
    enabled: Type.Boolean(),
    strategy: Type.Union(STRATEGY_NAMES.map((name) => Type.Literal(name))),
    failoverEnabled: Type.Boolean(),
    midStream: Type.Boolean(),
    failureThreshold: Type.Number(),
    resetTimeoutSecs: Type.Number(),
  }),
);

const EXPECTED = {
  enabled: 'true or false',
  strategy: STRATEGY_NAMES.join(', '),
  failoverEnabled: 'true or false',
  midStream: 'true or false',
  failureThreshold: 'a number',
  resetTimeoutSecs: 'a number',
};

/** Adds both; without `setLoadBalancing` only the reading one. */
export function addLoadBalancingRoutes(app: FastifyInstance, components: FacadeComponents): void {
  const view = (): LoadBalancingStatus => ({ failoverEnabled: true, ...components.loadBalancing() });
  app.get(PATH, async () => view());
  const set = components.setLoadBalancing;
  if (set === undefined) return;
  app.put(PATH, { onRequest: requireJson, bodyLimit: SMALL_BODY_BYTES }, async (request) => {
    const { failureThreshold, resetTimeoutSecs, ...patch } = smallBody(request, patchSchema, EXPECTED);
    refuseChange('failureThreshold', failureThreshold, view().failureThreshold);
    refuseChange('resetTimeoutSecs', resetTimeoutSecs, view().resetTimeoutSecs);
    await set(patch as Partial<LoadBalancing>);
    return view();
  });
}

function refuseChange(name: string, wanted: number | undefined, fixed: number): void {
  if (wanted === undefined || wanted === fixed) return;
  throw new MeshError('invalid_request', `${name} is ${fixed} and cannot be changed.`, { param: name });
}
