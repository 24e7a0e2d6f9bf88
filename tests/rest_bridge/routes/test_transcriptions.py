from puna_client.v1 import chat_pb2, message_pb2, usage_pb2


async def test_transcriptions(core, client):
    message = message_pb2.ChatMessage(role="assistant", content=" said \n")
    core.script("Chat", chat_pb2.ChatResponse(message=message, finish=usage_pb2.Finish()))
    boundary = "--B"

    async def sent(**fields):
        parts = [
            f'{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
            if name != "file"
        ]
        if "file" in fields:
            disposition = 'Content-Disposition: form-data; name="file"; filename="a.wav"'
            parts.append(f"{boundary}\r\n{disposition}\r\n\r\n{fields['file']}\r\n")
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        data = ("".join(parts) + f"{boundary}--\r\n").encode()
        async with client.post("/v1/audio/transcriptions", data=data, headers=headers) as response:
            return response.status, response.headers["Content-Type"], await response.text()

    assert await sent(model="m", file="RIFF", language="fr") == (200, "application/json", '{"text":"said"}\n')
    assert await sent(model="m", file="RIFF", response_format="text") == (200, "text/plain", "said")
    request = core.requests[0]
    assert request.messages[0].content.endswith(" The language of the recording is fr.")
    assert request.messages[1].media[0].data == b"RIFF"
    assert "model is required" in (await sent(file="RIFF"))[2]
    assert "file is required: http: no such file" in (await sent(model="m"))[2]
    assert "audio file is empty" in (await sent(model="m", file=""))[2]
    async with client.post("/v1/audio/transcriptions", data="{}") as response:
        text = await response.text()
    assert "failed to parse multipart form: request Content-Type isn't multipart/form-data" in text
