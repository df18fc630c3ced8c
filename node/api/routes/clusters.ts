/** `GET|POST /api/v1/clusters`, `DELETE /api/v1/clusters/:name`: Backend.AI clusters; a secret key goes in and never out. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import { MeshError } from '../../common/errors.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { SMALL_BODY_BYTES, smallBody } from '../json-body.ts';

const PATH = '/api/v1/clusters';

const newClusterSchema = Type.Partial(
  Type.Object({
    name: Type.String(),
    endpoint: Type.String(),
    accessKey: Type.String(),
    /** Checked below: a refusal by the schema would quote it. */
    secretKey: Type.Unknown(),
    allowHttp: Type.Boolean(),
    priority: Type.Integer(),
    share: Type.Boolean(),
  }),
);

const EXPECTED = {
  name: 'what people call it',
  endpoint: 'the https URL of its manager',
  accessKey: 'an access key',
  secretKey: 'the secret key of it',
  allowHttp: 'true or false',
  priority: 'a whole number',
  share: 'true or false',
};

/** Adds the three, where there are clusters. */
export function addClusterRoutes(app: FastifyInstance, { clusters }: FacadeComponents): void {
  if (clusters === undefined) return;
  app.get(PATH, async () => ({ clusters: clusters.list().map(({ slug, ...view }) => ({ id: slug, ...view })) }));
  app.post(PATH, { onRequest: requireJson, bodyLimit: SMALL_BODY_BYTES }, async (request, reply) => {
    const { name, endpoint, accessKey, secretKey, ...rest } = smallBody(request, newClusterSchema, EXPECTED);
    const given = { name: text({ name }), endpoint: text({ endpoint }), accessKey: text({ accessKey }), ...rest };
    const { cluster, probe } = await clusters.add(given, text({ secretKey }));
    const { slug, ...record } = cluster;
    const { services, ...found } = probe;
    const models = [...new Set(services.flatMap((service) => service.models))];
    return await reply.code(201).send({ id: slug, ...record, ...found, services, models });
  });
  app.delete<{ Params: { name: string } }>(`${PATH}/:name`, async (request) => {
    const { slug } = await clusters.remove(request.params.name);
    return { id: slug, removed: true };
  });
}

function text(field: Readonly<Record<string, unknown>>): string {
  const [[name, value] = ['', '']] = Object.entries(field);
  if (typeof value === 'string' && value !== '') return value;
  throw new MeshError('invalid_request', `${name} is missing, or no text.`, { param: name });
}
