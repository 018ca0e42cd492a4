//! The OpenAPI document, made from the operations.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref,
    RefOr, Required, extensions::ExtensionsBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::operation::{Answer, Member, Operation, Shape};
use super::problem::{ErrorBody, ErrorDetails, Violation};

/// The document, as it is served and committed.
pub fn document(operations: &[Operation]) -> OpenApi {
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut paths = PathsBuilder::new();
    for operation in operations {
        operation.body.iter().for_each(|shape| add(&mut schemas, shape));
        if let Answer::Object(shape) | Answer::Page(shape) = &operation.answer {
            add(&mut schemas, shape);
        }
        let item = PathItem::new(operation.method.clone(), describe(operation));
        paths = paths.path(format!("/v1{}", operation.path), item);
    }
    schemas.insert(ErrorBody::name().into(), ErrorBody::schema());
    schemas.insert(ErrorDetails::name().into(), ErrorDetails::schema());
    schemas.insert(Violation::name().into(), Violation::schema());
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).security_scheme("bearer", bearer).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("sea_mq")
                .version("1")
                .description(Some("The database's messaging over HTTP: docs/gateway.md"))
                .build(),
        )
        .paths(paths.build())
        .components(Some(components))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .build()
}

fn add(schemas: &mut BTreeMap<String, RefOr<Schema>>, shape: &Shape) {
    schemas.insert(shape.name.into(), RefOr::T(schema_of(shape)));
}

fn schema_of(shape: &Shape) -> Schema {
    let mut object = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    for member in shape.members {
        object = object.property(member.name, property(member));
        if member.required {
            object = object.required(member.name);
        }
    }
    object.into()
}

fn property(member: &Member) -> RefOr<Schema> {
    if member.kind == "jsonb" {
        return RefOr::T(ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(member.says)).into());
    }
    if let Some(element) = member.kind.strip_suffix("[]") {
        let items = simple(element, true);
        let array = ArrayBuilder::new().items(items).description(Some(member.says));
        return RefOr::T(if member.required { array.into() } else { array.schema_type(nullable(Type::Array)).into() });
    }
    RefOr::T(simple(member.kind, member.required).description(Some(member.says)).into())
}

fn nullable(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}

fn simple(kind: &str, required: bool) -> ObjectBuilder {
    let (kind, format) = match kind {
        "boolean" => (Type::Boolean, None),
        "integer" | "bigint" => (Type::Integer, None),
        "number" | "double precision" => (Type::Number, None),
        "uuid" => (Type::String, Some(SchemaFormat::Custom("uuid".into()))),
        "timestamptz" => (Type::String, Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
        _ => (Type::String, None),
    };
    let schema_type = if required { SchemaType::Type(kind) } else { nullable(kind) };
    ObjectBuilder::new().schema_type(schema_type).format(format)
}

fn describe(operation: &Operation) -> utoipa::openapi::path::Operation {
    let roles: Vec<String> = operation.roles.iter().map(|role| format!("sea_mq_{role}")).collect();
    let mut builder = OperationBuilder::new()
        .tag(operation.tag)
        .summary(Some(operation.summary))
        .operation_id(Some(operation_id(operation)))
        .extensions(Some(ExtensionsBuilder::new().add("x-sea-roles", json!(roles)).build()));
    for parameter in parameters(operation) {
        builder = builder.parameter(parameter);
    }
    if let Some(shape) = &operation.body {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(shape.name))).build();
        let required = if operation.body_required { Required::True } else { Required::False };
        builder = builder.request_body(Some(
            RequestBodyBuilder::new().content("application/json", content).required(Some(required)).build(),
        ));
    }
    builder.responses(responses(operation).build()).build()
}

fn responses(operation: &Operation) -> ResponsesBuilder {
    let mut responses = ResponsesBuilder::new();
    for status in operation.success {
        let mut response = ResponseBuilder::new().description("Done");
        if *status != 204 {
            let (kind, schema) = answer(&operation.answer);
            response = response.content(kind, ContentBuilder::new().schema(schema).build());
        }
        responses = responses.response(status.to_string(), response.build());
    }
    for status in operation.all_errors() {
        let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
        let response = ResponseBuilder::new().description(reason(status)).content("application/json", content());
        responses = responses.response(status.to_string(), response.build());
    }
    responses
}

fn answer(answer: &Answer) -> (&'static str, Option<RefOr<Schema>>) {
    let reference = |shape: &Shape| RefOr::Ref(Ref::from_schema_name(shape.name));
    match answer {
        Answer::Empty => ("application/json", None),
        Answer::Object(shape) => ("application/json", Some(reference(shape))),
        Answer::Page(shape) => {
            let next = simple("text", false).description(Some("`after` of the next page; null: this is the last"));
            let object = ObjectBuilder::new()
                .property("items", ArrayBuilder::new().items(reference(shape)))
                .property("next", next)
                .required("items")
                .required("next");
            ("application/json", Some(RefOr::T(object.into())))
        }
        Answer::Events => ("text/event-stream", Some(RefOr::T(simple("text", true).into()))),
    }
}

fn parameters(operation: &Operation) -> Vec<Parameter> {
    let segments = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = segments.map(|name| {
        let kind = if matches!(name, "version") || name == "id" && !operation.path.starts_with("/events") {
            "bigint"
        } else {
            "text"
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(simple(kind, true)))
            .build()
    });
    let query = operation.query.iter().map(|query| {
        ParameterBuilder::new()
            .name(query.name)
            .parameter_in(ParameterIn::Query)
            .description(Some(query.says))
            .schema(Some(simple(query.kind, true)))
            .build()
    });
    let headers = operation.headers.iter().map(|(name, says)| {
        ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Header)
            .description(Some(*says))
            .schema(Some(simple("text", true)))
            .build()
    });
    path.chain(query).chain(headers).collect()
}

fn operation_id(operation: &Operation) -> String {
    let method = match operation.method {
        HttpMethod::Get => "get",
        HttpMethod::Post => "post",
        HttpMethod::Put => "put",
        HttpMethod::Patch => "patch",
        _ => "delete",
    };
    let words = operation.path.split(['/', '-']).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{}", word.trim_matches(['{', '}'])))
}

fn reason(status: u16) -> &'static str {
    axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}
