/** `GET /api/v1/residency` and `POST /api/v1/residency/load|unload|pin|unpin`: which models are in memory here. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import type { ResidencyControl } from '../../backends/backend.ts';
import { MeshError } from '../../common/errors.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { SMALL_BODY_BYTES, smallBody } from '../json-body.ts';

const PATH = '/api/v1/residency';
const bodySchema = Type.Partial(Type.Object({ model: Type.String({ minLength: 1, maxLength: 256 }) }));

const VERBS: Readonly<Record<string, (residency: ResidencyControl, model: string) => void>> = {
  load: (residency, model) => residency.loadModel(model),
  unload: (residency, model) => residency.unloadModel(model),
  pin: (residency, model) => residency.pinModel(model, true),
  unpin: (residency, model) => residency.pinModel(model, false),
};

/**
 * Adds them, where the engine can tell. A verb answers at once, with the model as it is then: loading goes on, and shows
 * in the list and in the events.
 */
export function addResidencyRoutes(app: FastifyInstance, { residency }: FacadeComponents): void {
  if (residency === undefined) return;
  app.get(PATH, async () => ({ budgetBytes: residency.budgetBytes, models: residency.list() }));
  for (const [verb, act] of Object.entries(VERBS)) {
    app.post(`${PATH}/${verb}`, { onRequest: requireJson, bodyLimit: SMALL_BODY_BYTES }, async (request) => {
      const { model } = smallBody(request, bodySchema, { model: 'the id of a model that is here' });
      if (model === undefined) throw new MeshError('invalid_request', 'Name the model.', { param: 'model' });
      const isHere = residency.list().some((each) => each.model === model);
      if (!isHere) throw new MeshError('not_found', `There is no model "${model}" on this node.`, { param: 'model' });
      act(residency, model);
      return residency.list().find((each) => each.model === model);
    });
  }
}
