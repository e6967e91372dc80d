from dapr.clients.grpc import conversation
from dapr.clients.grpc.conversation import (
    ConversationInput,
    ConversationInputAlpha2,
    ConversationTools,
    ConversationToolsFunction,
)
from sidecar import Case, Sidecar, component

PARROT = 'parrot'


class Conversation(Case):
    def setUp(self):
        self.sidecar = self.enterContext(Sidecar(parts=[component(PARROT, 'conversation.echo')]))
        self.sidecar.ready()

    async def test_text(self):
        async def check(client, _):
            answer = await client.converse_alpha1(PARROT, [ConversationInput('good morning')])
            self.assertEqual([output.result for output in answer.outputs], ['good morning'])
            scrubbed = await client.converse_alpha1(
                PARROT, [ConversationInput('ada@example.com', scrub_pii=True)], scrub_pii=True
            )
            self.assertNotIn('ada', scrubbed.outputs[0].result)
            await self.refused(
                lambda: client.converse_alpha1('nobody', [ConversationInput('x')]),
                'INVALID_ARGUMENT',
            )

        await self.both(self.sidecar, check)

    async def test_tools(self):
        def weather(city: str, unit: str = 'C') -> str:
            """The weather of a city."""
            return f'sunny in {city}, in {unit}'

        function = ConversationToolsFunction.from_function(weather, register=False)
        tools = [ConversationTools(function=function)]

        async def check(client, _):
            messages = [
                conversation.create_system_message('be brief'),
                conversation.create_user_message('what is the weather?'),
            ]
            inputs = [ConversationInputAlpha2(messages)]
            answer = await client.converse_alpha2(PARROT, inputs, tools=tools)
            (choice,) = answer.outputs[0].choices
            self.assertEqual(choice.finish_reason, 'tool_calls')
            (call,) = choice.message.tool_calls
            self.assertEqual(call.function.name, 'weather')
            self.assertEqual(call.function.arguments, 'city,unit')

            # The conversation goes on with what the tool said.
            said = answer.to_assistant_messages()
            said.append(conversation.create_tool_message(call.id, 'weather', weather('Oslo')))
            answer = await client.converse_alpha2(
                PARROT, [ConversationInputAlpha2([*messages, *said])]
            )
            message = answer.outputs[0].choices[0].message
            self.assertIn('sunny in Oslo, in C', message.content)
            self.assertIn('what is the weather?', message.content)

        await self.both(self.sidecar, check)

    async def test_an_empty_conversation_is_refused(self):
        async def check(client, _):
            await self.refused(lambda: client.converse_alpha2(PARROT, []), 'INVALID_ARGUMENT')

        await self.both(self.sidecar, check)
